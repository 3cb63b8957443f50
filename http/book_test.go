package http

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

func TestBook_HoldsSeatsForTheUser(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, who := w.token(t, evently.RoleUser)

	a, r := w.book(t, 1, bearer, "k", ` { "quantity" : 2 } `)
	if got, want := a.header.Get("Location"), "/reservations/"+r.ID; got != want {
		t.Errorf("Location is %q, want %q", got, want)
	}
	if a.header.Get("Idempotency-Replayed") != "" {
		t.Error("a first answer says that it is replayed")
	}
	if r.Status != "held" || r.Quantity != 2 || r.TotalMinor != 5000 {
		t.Errorf("got %s", a.body)
	}
	request := box.lastRequest(t)
	cmd := request.Command.(*evently.Book)
	if request.Event != 1 || request.Who != who.User || request.ID != a.header.Get("X-Request-Id") ||
		cmd.User != who.User || cmd.Key != evently.BookKey(who.User, "k") || cmd.Token == 0 {
		t.Errorf("the engine was asked %+v with %+v", request, cmd)
	}
}

func TestBook_RepeatedKeyGetsTheFirstAnswerToTheByte(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500), seats("Balcony", 100, 1500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	const body = `{"items":[{"tier_id":"t2","quantity":1},{"tier_id":"t1","quantity":2}]}`

	first, r := w.book(t, 1, bearer, "k", body)
	w.clock.add(time.Minute)
	if a := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", bearer); a.status != 200 {
		t.Fatalf("confirm: %s", a.body)
	}
	// The same seats in another order and spelling are the same request.
	for _, again := range []string{body, `{"items":[{"quantity":2,"tier_id":"t1"},{"quantity":1,"\u0074ier_id":"t\u0032"}]}`} {
		second, _ := w.book(t, 1, bearer, "k", again)
		if !bytes.Equal(first.body, second.body) {
			t.Errorf("first answer %s, then %s", first.body, second.body)
		}
		if second.header.Get("Idempotency-Replayed") != "true" || second.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("headers of the second answer: %v", second.header)
		}
	}
	w.do(t, "POST", "/events/"+evently.EventID(1).String()+"/book", `{"items":[{"tier_id":"t1","quantity":2}]}`,
		"Authorization", bearer, "Idempotency-Key", "k").problem(t, evently.CodeIdempotencyKeyReused)

	for outcome, want := range map[string]float64{"held": 1, "replayed": 2, "idempotency_key_reused": 1} {
		if got := testutil.ToFloat64(w.server.metrics.bookings.of(outcome)); got != want {
			t.Errorf("%v bookings with outcome %s, want %v", got, outcome, want)
		}
	}
}

func TestBook_QuantityIsOfTheOnlyTierOnOffer(t *testing.T) {
	w, box := newBoxSite(t)
	gone := seats("Early", 0, 1000)
	gone.Retired = true
	box.add(box.event(1, 9, gone, seats("Regular", 10, 2000)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	a, _ := w.book(t, 1, bearer, "k", `{"quantity":3}`)
	if want := `"items":[{"tier_id":"t2","quantity":3,"unit_price_minor":2000}]`; !bytes.Contains(a.body, []byte(want)) {
		t.Errorf("got %s, want it to have %s", a.body, want)
	}
}

func TestBook_Refusals(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 5, 2500)), nil)
	box.add(box.event(2, 9, seats("Floor", 50, 2500), seats("Balcony", 3, 1500)), nil)
	box.add(box.event(3, 9, seats("Floor", 5, 2500)), func(e *evently.Event) { e.Status = evently.EventDraft })
	box.add(box.event(4, 9, seats("Floor", 5, 2500)), func(e *evently.Event) { e.Status = evently.EventCancelled })
	bearer, _ := w.token(t, evently.RoleUser)

	many := `{"items":[` + strings.TrimSuffix(strings.Repeat(`{"tier_id":"t1","quantity":1},`, evently.TiersMax+1), ",") + `]}`
	tests := []struct {
		name, event, body string
		code              evently.Code
		field             string
	}{
		{"sold out", "1", `{"quantity":6}`, evently.CodeSoldOut, ""},
		{"one item sold out", "2", `{"items":[{"tier_id":"t1","quantity":1},{"tier_id":"t2","quantity":4}]}`, evently.CodeSoldOut, ""},
		{"over the event's limit", "1", `{"quantity":11}`, evently.CodeQuantityExceedsLimit, ""},
		{"over every limit", "1", `{"quantity":1001}`, evently.CodeQuantityExceedsLimit, ""},
		{"items over every limit", "2", `{"items":[{"tier_id":"t1","quantity":5000}]}`, evently.CodeQuantityExceedsLimit, ""},
		{"draft", "3", `{"quantity":1}`, evently.CodeEventNotFound, ""},
		{"cancelled", "4", `{"quantity":1}`, evently.CodeEventNotOnSale, ""},
		{"no such event", "5", `{"quantity":1}`, evently.CodeEventNotFound, ""},
		{"no such event, items", "5", `{"items":[{"tier_id":"t1","quantity":1}]}`, evently.CodeEventNotFound, ""},
		{"tier beyond the last", "1", `{"items":[{"tier_id":"t2","quantity":1}]}`, evently.CodeUnknownTier, ""},
		{"no tier id at all", "1", `{"items":[{"tier_id":"floor","quantity":1}]}`, evently.CodeUnknownTier, ""},
		{"quantity of several tiers", "2", `{"quantity":1}`, "", "items"},
		{"neither", "1", `{}`, "", "quantity"},
		{"both", "1", `{"quantity":1,"items":[{"tier_id":"t1","quantity":1}]}`, "", "items"},
		{"zero", "1", `{"quantity":0}`, "", "quantity"},
		{"negative", "1", `{"quantity":-1}`, "", "quantity"},
		{"fraction", "1", `{"quantity":1.5}`, "", "quantity"},
		{"exponent", "1", `{"quantity":1e0}`, "", "quantity"},
		{"too large for an integer", "1", `{"quantity":99999999999999999999}`, "", "quantity"},
		{"string", "1", `{"quantity":"1"}`, "", "quantity"},
		{"null", "1", `{"quantity":null}`, "", "quantity"},
		{"no items", "1", `{"items":[]}`, "", "items"},
		{"too many items", "1", many, "", "items"},
		{"items of another type", "1", `{"items":{}}`, "", "items"},
		{"item of another type", "1", `{"items":[1]}`, "", "items[0]"},
		{"item without tier", "1", `{"items":[{"quantity":1}]}`, "", "items[0].tier_id"},
		{"item without quantity", "1", `{"items":[{"tier_id":"t1"}]}`, "", "items[0].quantity"},
		{"item with zero seats", "1", `{"items":[{"tier_id":"t1","quantity":0}]}`, "", "items[0].quantity"},
		{"tier of another type", "1", `{"items":[{"tier_id":1,"quantity":1}]}`, "", "items[0].tier_id"},
		{"tier twice", "2", `{"items":[{"tier_id":"t1","quantity":1},{"tier_id":"t1","quantity":1}]}`, "", "items[1].tier_id"},
		{"unknown field", "1", `{"quantity":1,"user_id":"x"}`, "", "user_id"},
		{"unknown field of great length", "1", `{"` + strings.Repeat("ж", 20_000) + `":1}`, "", strings.Repeat("ж", 100)},
		{"field in another case", "1", `{"Quantity":1}`, "", "Quantity"},
		{"unknown field of an item", "1", `{"items":[{"tier_id":"t1","quantity":1,"seat":4}]}`, "", "items[0].seat"},
		{"field twice", "1", `{"quantity":1,"quantity":1}`, "", "quantity"},
		{"field of an item twice", "1", `{"items":[{"tier_id":"t1","quantity":1,"quantity":1}]}`, "", "items[0].quantity"},
		{"no object", "1", `[]`, "", "body"},
		{"no body", "1", ``, "", "body"},
		{"trailing data", "1", `{"quantity":1}{}`, "", "body"},
		{"cut off", "1", `{"quantity":1`, "", "body"},
		{"bad UTF-8", "1", "{\"quantity\xff\":1}", "", "body"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n, err := strconv.Atoi(test.event)
			if err != nil {
				t.Fatal(err)
			}
			a := w.do(t, "POST", "/events/"+evently.EventID(n).String()+"/book", test.body,
				"Authorization", bearer, "Idempotency-Key", "k", "Content-Type", "application/json")
			if test.field != "" {
				a.field(t, test.field)
				return
			}
			a.problem(t, test.code)
		})
	}
	if len(box.rows) != 0 {
		t.Errorf("refused requests left reservations: %v", box.rows)
	}
}

func TestBook_SoldOutTellsWhatIsAvailable(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 5, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	w.book(t, 1, bearer, "k1", `{"quantity":5}`)
	a := w.do(t, "POST", "/events/"+evently.EventID(1).String()+"/book", `{"quantity":1}`, "Authorization", bearer, "Idempotency-Key", "k2")
	if p := a.problem(t, evently.CodeSoldOut); p.Available == nil || *p.Available != 0 {
		t.Errorf("got %s, want available 0", a.body)
	}
}

func TestBook_NeedsAKeyAndAUserAndJSON(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 5, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	path, body := "/events/"+evently.EventID(1).String()+"/book", `{"quantity":1}`
	w.do(t, "POST", path, body, "Authorization", bearer).problem(t, evently.CodeIdempotencyKeyRequired)
	w.do(t, "POST", path, body, "Authorization", bearer, "Idempotency-Key", "a b").field(t, "Idempotency-Key")
	w.do(t, "POST", path, body, "Idempotency-Key", "k").problem(t, evently.CodeUnauthenticated)
	w.do(t, "POST", path, body, "Authorization", bearer, "Idempotency-Key", "k", "Content-Type", "text/plain").
		problem(t, codeUnsupportedMediaType)
	w.do(t, "POST", path, strings.Repeat(" ", bodyBytesMax+1), "Authorization", bearer, "Idempotency-Key", "k").
		problem(t, codeBodyTooLarge)
	w.do(t, "POST", "/events/evt_1/book", body, "Authorization", bearer, "Idempotency-Key", "k").problem(t, evently.CodeEventNotFound)
}

func TestBook_EngineErrorsAreTold(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 5, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	for err, code := range map[error]evently.Code{
		evently.ErrUnavailable:                         evently.CodeUnavailable,
		fmt.Errorf("route: %w", evently.ErrOverloaded): evently.CodeOverloaded,
		context.DeadlineExceeded:                       evently.CodeUnavailable,
		io.ErrUnexpectedEOF:                            evently.CodeInternal,
	} {
		box.failWith(err)
		a := w.do(t, "POST", "/events/"+evently.EventID(1).String()+"/book", `{"items":[{"tier_id":"t1","quantity":1}]}`,
			"Authorization", bearer, "Idempotency-Key", "k")
		a.problem(t, code)
		if retry := a.header.Get("Retry-After"); (retry == "") != (code == evently.CodeInternal) {
			t.Errorf("%v: Retry-After is %q", err, retry)
		}
		if got := testutil.ToFloat64(w.server.metrics.bookings.of(string(code))); got == 0 {
			t.Errorf("%v: outcome %s was not counted", err, code)
		}
	}
}

// strictBody is what scan must do, by encoding/json alone.
func strictBody(text []byte, fields []string) (b bookBody, ok bool) {
	object, ok := strictObject(text, fields...)
	if !ok {
		return b, false
	}
	if raw, found := object["on_release"]; found {
		var name string
		if raw[0] != '"' || json.Unmarshal(raw, &name) != nil || name != "book" && name != "hold" {
			return b, false
		}
		if name == "hold" {
			b.onRelease = evently.HoldOnRelease
		}
		delete(object, "on_release")
	}
	if len(object) != 1 {
		return b, false
	}
	if raw, found := object["quantity"]; found {
		b.quantity, ok = strictInt(raw)
		return b, ok
	}
	var items []json.RawMessage
	if object["items"][0] != '[' || json.Unmarshal(object["items"], &items) != nil {
		return b, false
	}
	b.hasItems = true
	for i, raw := range items {
		item, ok := strictObject(raw, "tier_id", "quantity")
		if !ok || len(item) != 2 || item["tier_id"][0] != '"' {
			return b, false
		}
		at := &b.items[min(i, evently.TiersMax)]
		if at.Quantity, ok = strictInt(item["quantity"]); !ok {
			return b, false
		}
		var id string
		if json.Unmarshal(item["tier_id"], &id) != nil {
			return b, false
		}
		var err error
		if at.Tier, err = evently.ParseTierID(id); err != nil {
			at.Tier = tierUnknown
		}
		b.count++
	}
	return b, true
}

// strictObject reads an object that has no names but these, and none twice.
func strictObject(text []byte, names ...string) (object map[string]json.RawMessage, ok bool) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, false
	}
	object = make(map[string]json.RawMessage)
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, false
		}
		_, twice := object[name.(string)]
		if twice || !slices.Contains(names, name.(string)) {
			return nil, false
		}
		object[name.(string)] = value
	}
	return object, true
}

func strictInt(raw json.RawMessage) (n int, ok bool) {
	return n, json.Unmarshal(raw, &n) == nil && raw[0] != 'n'
}

func FuzzBookBody(f *testing.F) {
	for _, seed := range []string{
		`{"quantity":2}`, `{"items":[{"tier_id":"t1","quantity":2}]}`, "\t{ \"items\" :\n[ { \"quantity\" : 1 , \"tier_id\" : \"t32\" } ] }\r ",
		`{"items":[{"tier_id":"t1","quantity":2},{"tier_id":"t2","quantity":-0}]}`, `{"items":[]}`, `{"quantity":1,}`, `{"quantity":01}`,
		`{"quan\u0074ity":9223372036854775807}`, `{"quantity":9223372036854775808}`, `{"quantity":-9223372036854775808}`, `{"quantity":1.0}`,
		`{"quantity":1E400}`, `{"quantity":1,"quantity":2}`, `{"Quantity":1}`, `{"items":null}`, `{"items":[null]}`, `{"items":[[]]}`,
		`{"items":[{"tier_id":"\ud83d\ude00","quantity":1}]}`, `{"items":[{"tier_id":"\q","quantity":1}]}`, `{"quantity":1}x`, `{`, ``, ` `,
		"{\"items\":[{\"tier_id\":\"\xc3\x28\",\"quantity\":1}]}", `{"":1}`, `{"quantity":+1}`, `{"quantity":.5}`, `{"quantity":-}`, "\ufeff{}",
		`{"quantity":2,"on_release":"hold"}`, `{"on_release":"b\u006fok","items":[{"tier_id":"t1","quantity":2}]}`, `{"on_release":"hold"}`,
		`{"quantity":2,"on_release":null}`, `{"quantity":2,"on_release":"Hold"}`, `{"on_release":"hold","quantity":2,"on_release":"hold"}`,
		`{"items":[{"tier_id":"t1","quantity":1}],"x":{"a":[1,2,{"b":null}]}}`, "{\"quantity\":1}\x00", "{\"tier\x01\":1}", `{"quantity":1e1}`,
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, waits bool) {
		fields := bookFields
		if waits {
			fields = waitFields
		}
		var got bookBody
		err := got.scan(text, fields)
		want, ok := strictBody(text, fields)
		if bytes.Contains(bytes.ToLower(text), []byte(`\ud`)) && err != nil {
			return // half a surrogate pair: encoding/json puts U+FFFD in its place, scan refuses it
		}
		if ok != (err == nil) {
			t.Fatalf("%q: encoding/json accepts it: %t; scan: %v", text, ok, err)
		}
		if ok {
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(bookBody{})); diff != "" {
				t.Fatalf("%q: scan reads it differently (-want +got):\n%s", text, diff)
			}
			return
		}
		if p := refusalOf(err); p.Code != evently.CodeInvalidRequest || len(p.Fields) != 1 {
			t.Fatalf("%q: refused with %+v, which names no field", text, p)
		}
	})
}

// heldEngine answers every booking with the same reservation.
type heldEngine struct{ reply evently.Reply }

func (e *heldEngine) Do(context.Context, *evently.Request) (evently.Reply, error) {
	return e.reply, nil
}

// BenchmarkBook is the whole chain of a booking without the network and without the engine.
func BenchmarkBook(b *testing.B) {
	now := time.Date(2027, time.March, 1, 12, 0, 0, 0, time.UTC)
	engine := &heldEngine{evently.Reply{Reservation: evently.Reservation{
		ID: evently.ReservationID{Event: 1, Token: 2}, User: 3, Items: evently.OneItem(evently.Item{Quantity: 2, UnitPriceMinor: 2500}),
		Currency: "EUR", CreatedAt: now, ExpiresAt: now.Add(10 * time.Minute), Seq: 7,
	}}}
	for name, body := range map[string]string{"quantity": `{"quantity":2}`, "items": `{"items":[{"tier_id":"t1","quantity":2}]}`} {
		b.Run(name, func(b *testing.B) {
			box := &fakeBox{clock: newFakeClock(), ledgers: make(map[evently.EventID]*evently.Ledger)}
			w := newSite(b, func(config *Config) {
				config.Engine, config.Catalogue = engine, box
				config.BookLimit = Limit{Requests: 1_000_000, Window: time.Second}
				config.Now = time.Now
			})
			box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
			w.clock.add(time.Since(w.clock.Now()))
			bearer, _ := w.token(b, evently.RoleUser)
			reader := strings.NewReader(body)
			request, err := http.NewRequestWithContext(b.Context(), "POST", "/events/"+evently.EventID(1).String()+"/book", reader)
			if err != nil {
				b.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Authorization", bearer)
			request.Header.Set("Idempotency-Key", "3b241101-e2bb-4255-8caf-4136c566a962")
			writer := &nowhere{make(http.Header)}
			handler := w.server.Handler()
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				request.Body = io.NopCloser(reader)
				clear(writer.header)
				handler.ServeHTTP(writer, request)
			}
			if got := testutil.ToFloat64(w.server.metrics.bookings.of("held")); got != float64(b.N) {
				b.Fatalf("%v held of %d", got, b.N)
			}
		})
	}
}
