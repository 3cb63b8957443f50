package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/http/apitest"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

// The tour of README.md, as a reader pastes it.
func TestREADME_ToursWorkWhenPasted(t *testing.T) {
	t.Parallel()
	if _, err := osexec.LookPath("curl"); err != nil {
		t.Fatal("the tours need curl: apt-get install curl")
	}
	n := proctest.Up(t, proctest.DataDir(t), "--demo")
	adapt := strings.NewReplacer("http://127.0.0.1:8080", n.API, "http://127.0.0.1:8081", n.Operations, "the-password-that-up-printed", n.Password)
	tours := []struct {
		name   string
		prints map[string]int
	}{
		{"tour", map[string]int{
			`"email":"ann@example.com"`:    1,
			"HTTP/1.1 201 Created":         2,
			"Idempotency-Replayed: true":   1,
			`"status":"held"`:              2,
			`"status":"confirmed"`:         2,
			`"status":"cancelled"`:         1,
			`"available":12,"held":0,"boo`: 4, // twice, in all and for the tier
			"problem":                      0,
		}},
		{"second tour", map[string]int{
			`"position":1,"status":"waiting"`: 1,
			"HTTP/1.1 204 No Content":         1,
			`"status":"confirmed"`:            1,
			`"next_price_minor":2900`:         1, // half of the seats are taken: 2500 x 1.15 = 2875, rounded
			`"kind":"waitlisted"`:             1,
			"event: availability":             1,
			"problem":                         0,
		}},
	}
	const end = "== end of a tour\n"
	script := ""
	for _, tour := range tours {
		script += adapt.Replace(pasted(t, tour.name)) + "printf '" + end + "'\n"
	}
	out, err := osexec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, printed := range strings.Split(string(out), end)[:len(tours)] {
		for what, count := range tours[i].prints {
			if got := strings.Count(printed, what); got != count {
				t.Errorf("the %s prints %q %d times, want %d:\n%s", tours[i].name, what, got, count, printed)
			}
		}
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
}

// Every wrong input gets its problem and changes nothing.
func TestContract_WrongInputIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--rate-limit-book=off")
	event := n.CreateEvent(t, 10, time.Hour)
	tokens := n.Users(t, 2)
	anybody, admin, ann, ben := n.Client(t, ""), n.Client(t, n.Login(t)), n.Client(t, tokens[0]), n.Client(t, tokens[1])
	held := ann.Must(t, 201, "POST", event+"/book", "held", `{"quantity":2}`).Seats(t)
	ended := ann.Must(t, 201, "POST", event+"/book", "ended", `{"quantity":1}`).Seats(t)
	ann.Must(t, 204, "DELETE", "/reservations/"+ended.ID, "", "")
	before := anybody.Must(t, 200, "GET", event+"/availability", "", "").Seats(t)

	const unknownEvent, unknownReservation = "evt_0000000000001", "rsv_00000000000010000000000001"
	wrong := apitest.Wrong(t.Context())
	for _, try := range []struct {
		client                  *proctest.Client
		method, path, key, body string
		status                  int
		code                    string
	}{
		{anybody, "POST", event + "/book", "k", `{"quantity":1}`, 401, "unauthenticated"},
		{n.Client(t, "not.a.token"), "POST", event + "/book", "k", `{"quantity":1}`, 401, "unauthenticated"},
		{ann, "POST", event + "/book", "", `{"quantity":1}`, 400, "idempotency_key_required"},
		{ann, "POST", event + "/book", strings.Repeat("k", 256), `{"quantity":1}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", ``, 415, "unsupported_media_type"},
		{ann, "POST", event + "/book", "k", `{`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `[]`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":0}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":-1}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":1.5}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":"1"}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":null}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":99999999999999999999}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":1,"quantity":1}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":1,"vip":true}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"Quantity":1}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":1} {}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", "{\"quantity\":1,\"\xff\":1}", 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"quantity":1,"items":[{"tier_id":"t1","quantity":1}]}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"items":[]}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"items":[{"tier_id":"t1","quantity":1},{"tier_id":"t1","quantity":1}]}`, 400, "invalid_request"},
		{ann, "POST", event + "/book", "k", `{"items":[{"tier_id":"t2","quantity":1}]}`, 422, "unknown_tier"},
		{ann, "POST", event + "/book", "k", `{"quantity":11}`, 422, "quantity_exceeds_limit"},
		{ann, "POST", event + "/book", "k", `{"quantity":9}`, 409, "sold_out"},
		{ann, "POST", event + "/book", "held", `{"quantity":1}`, 422, "idempotency_key_reused"},
		{ann, "POST", event + "/book", "k", `{"quantity":1,"x":"` + strings.Repeat("x", 65<<10) + `"}`, 413, ""},
		{ann, "POST", "/events/" + unknownEvent + "/book", "k", `{"quantity":1}`, 404, "event_not_found"},
		{ann, "POST", "/events/42/book", "k", `{"quantity":1}`, 404, "event_not_found"},
		{anybody, "GET", "/events/" + unknownEvent, "", "", 404, "event_not_found"},
		{anybody, "GET", "/events?limit=0", "", "", 400, "invalid_request"},
		{anybody, "GET", "/events?limit=101", "", "", 400, "invalid_request"},
		{anybody, "GET", "/events?cursor=nonsense", "", "", 400, "invalid_request"},
		{anybody, "GET", "/events?sort=price", "", "", 400, "invalid_request"},
		{anybody, "GET", "/events?from=yesterday", "", "", 400, "invalid_request"},
		{ben, "GET", "/reservations/" + held.ID, "", "", 404, "reservation_not_found"},
		{ben, "POST", "/reservations/" + held.ID + "/confirm", "", "", 404, "reservation_not_found"},
		{ben, "DELETE", "/reservations/" + held.ID, "", "", 404, "reservation_not_found"},
		{ben, "POST", "/bookings/" + held.ID + "/cancel", "", "", 404, "reservation_not_found"},
		{ann, "POST", "/reservations/" + unknownReservation + "/confirm", "", "", 404, "reservation_not_found"},
		{ann, "POST", "/reservations/" + ended.ID + "/confirm", "", "", 409, "reservation_cancelled"},
		{anybody, "GET", "/bookings", "", "", 401, "unauthenticated"},
		{ann, "POST", "/admin/events", "", `{}`, 403, "forbidden"},
		{admin, "POST", "/admin/events", "", `{}`, 400, "invalid_request"},
		{admin, "PUT", "/admin" + event, "", `{}`, 428, "version_required"},
		{anybody, "POST", "/login", "", `{"email":"user0@example.com","password":"wrong-password"}`, 401, "invalid_credentials"},
		{anybody, "POST", "/login", "", `{"email":"nobody@example.com","password":"wrong-password"}`, 401, "invalid_credentials"},
		{anybody, "POST", "/register", "", `{"email":"not an address","password":"short","name":""}`, 400, "invalid_request"},
		{anybody, "POST", "/token/refresh", "", `{"refresh_token":"nonsense"}`, 401, ""},
		{anybody, "GET", "/nowhere", "", "", 404, "not_found"},
		{anybody, "PUT", "/events", "", "", 405, ""},
	} {
		got, err := try.client.Send(wrong, try.method, try.path, try.key, try.body)
		var problem struct {
			Code      string
			Status    int
			RequestID string `json:"request_id"`
		}
		if err == nil {
			err = json.Unmarshal(got.Body, &problem)
		}
		if err != nil || got.Status != try.status || problem.Status != try.status || problem.RequestID == "" ||
			try.code != "" && problem.Code != try.code {
			t.Errorf("%s %s %.80s: got %d %.300s (%v), want %d %s", try.method, try.path, try.body, got.Status, got.Body, err, try.status, try.code)
		}
	}

	if after := anybody.Must(t, 200, "GET", event+"/availability", "", "").Seats(t); after != before {
		t.Errorf("wrong input changed %+v to %+v", before, after)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	proctest.Verified(t, dir)
}

// Through the life of an event as its organizer sees it.
func TestContract_AnEventFromDraftToCancellation(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir)
	admin, ann := n.Client(t, n.Login(t)), n.Client(t, n.Users(t, 1)[0])
	starts := time.Now().Add(72 * time.Hour).UTC().Truncate(time.Second)
	details := func(capacity int, more string) string {
		return fmt.Sprintf(`{"name":"Reading","starts_at":%q,"ends_at":%q,"timezone":"Asia/Tokyo","currency":"JPY",
			"capacity":%d,"base_price_minor":2000%s}`, starts.Format(time.RFC3339), starts.Add(time.Hour).Format(time.RFC3339), capacity, more)
	}
	created := admin.Must(t, 201, "POST", "/admin/events", "create", details(5, `,"status":"draft"`))
	again := admin.Must(t, 201, "POST", "/admin/events", "create", details(5, `,"status":"draft"`))
	if !again.Replayed || string(again.Body) != string(created.Body) {
		t.Errorf("repeated creation: replayed=%v\n%s\n%s", again.Replayed, created.Body, again.Body)
	}
	id := created.Seats(t).ID
	path := "/events/" + id
	ann.Must(t, 404, "GET", path, "", "")
	ann.Must(t, 404, "POST", path+"/book", "early", `{"quantity":1}`)
	admin.Must(t, 200, "POST", "/admin"+path+"/publish", "", "")
	hold := ann.Must(t, 201, "POST", path+"/book", "one", `{"quantity":3}`).Seats(t)
	ann.Must(t, 200, "POST", "/reservations/"+hold.ID+"/confirm", "", "")
	second := ann.Must(t, 201, "POST", path+"/book", "two", `{"quantity":1}`).Seats(t)

	revise := func(wantStatus int, version, body string) {
		t.Helper()
		admin.Must(t, wantStatus, "PUT", "/admin"+path, "", body, "If-Match", version)
	}
	revise(412, `"1"`, details(9, ""))
	revise(409, `"2"`, details(3, ""))
	revise(200, `"2"`, details(4, ""))
	if counts := ann.Must(t, 200, "GET", path+"/availability", "", "").Seats(t); counts.Capacity != 4 || counts.Available != 0 || counts.Booked != 3 {
		t.Errorf("after the revision: %+v", counts)
	}
	ann.Must(t, 409, "POST", path+"/book", "three", `{"quantity":1}`)

	admin.Must(t, 200, "POST", "/admin"+path+"/cancel", "", "")
	proctest.Eventually(t, 10*time.Second, func() error {
		for _, r := range []string{hold.ID, second.ID} {
			if status := ann.Must(t, 200, "GET", "/bookings/"+r, "", "").Seats(t).Status; status != "cancelled" {
				return errors.New(status)
			}
		}
		return nil
	})
	ann.Must(t, 409, "POST", path+"/book", "late", `{"quantity":1}`)
	ann.Must(t, 409, "POST", "/reservations/"+second.ID+"/confirm", "", "")
	if first := ann.Must(t, 201, "POST", path+"/book", "one", `{"quantity":3}`); !first.Replayed {
		t.Error("the first booking's key is forgotten")
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	proctest.Verified(t, dir)
}

// Postgres goes away under load: bookings are refused with 503 and a time to come again, known events can be read with their
// as_of, and when it is back the node is, too, with all that it acknowledged.
func TestPromise_PostgresAwayAndBack(t *testing.T) {
	t.Parallel()
	config := embedded.Config{DataDir: pgtest.DataDir(t), UnsafeNoFsync: true}
	server, err := embedded.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.StopImmediate(ctx); err != nil {
			t.Error(err)
		}
	}
	defer func() { stop() }()
	n := proctest.Up(t, proctest.DataDir(t), "--database-url="+server.DSN(), "--rate-limit-book=off")
	path := n.CreateEvent(t, 100, time.Hour)
	c := n.Client(t, n.Users(t, 1)[0])
	kept := c.Must(t, 201, "POST", path+"/book", "kept", `{"quantity":3}`)
	c.Must(t, 200, "GET", path, "", "")

	stop()
	refused := c.Must(t, 503, "POST", path+"/book", "away", `{"quantity":1}`)
	if code := refused.Code(t); code != "unavailable" {
		t.Errorf("booking while Postgres is away: code %s", code)
	}
	c.Must(t, 200, "GET", path, "", "")
	var counts struct {
		Held int
		AsOf time.Time `json:"as_of"`
	}
	if err := json.Unmarshal(c.Must(t, 200, "GET", path+"/availability", "", "").Body, &counts); err != nil || counts.Held != 3 || counts.AsOf.IsZero() {
		t.Errorf("availability while Postgres is away: %+v %v", counts, err)
	}
	c.Must(t, 503, "GET", "/health", "", "")
	c.Must(t, 200, "GET", "/livez", "", "")

	if server, err = embedded.Start(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, 30*time.Second, func() error {
		a, err := c.Send(t.Context(), "POST", path+"/book", "away", `{"quantity":1}`)
		if err == nil && a.Status != 201 {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	again := c.Must(t, 201, "POST", path+"/book", "kept", `{"quantity":3}`)
	if !again.Replayed || string(again.Body) != string(kept.Body) {
		t.Errorf("before %s\nafter %s", kept.Body, again.Body)
	}
	if held := c.Must(t, 200, "GET", path+"/availability", "", "").Seats(t).Held; held != 4 {
		t.Errorf("%d held, want 4", held)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
}
