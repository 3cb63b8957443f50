package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// order is a body with a field of every kind.
type order struct {
	Name     string         `json:"name"`
	Quantity int            `json:"quantity"`
	Total    int64          `json:"total_minor"`
	Rate     float64        `json:"rate"`
	Gift     bool           `json:"gift"`
	At       time.Time      `json:"at"`
	Until    *time.Time     `json:"until"`
	Limit    *int32         `json:"limit"`
	Tiers    []orderTier    `json:"tiers"`
	Notes    map[string]int `json:"notes"`
	Extra    any            `json:"extra"`
	orderBase
}

type orderTier struct {
	ID    string `json:"id"`
	Seats []int  `json:"seats"`
}

type orderBase struct {
	Base string `json:"base"`
}

func TestDecode_Accepts(t *testing.T) {
	at := time.Date(2027, 5, 1, 18, 0, 0, 0, time.UTC)
	limit := int32(-7)
	for text, want := range map[string]order{
		`{}`:                                 {},
		" \t\r\n{ } \n":                      {},
		`{"name":"a\"\\\/\b\f\n\r\t\u00e9"}`: {Name: "a\"\\/\b\f\n\r\té"},
		`{"name":"\ud83c\udf9f"}`:            {Name: "🎟"},
		`{"name":"🎟"}`:                       {Name: "🎟"},
		`{"n\u0061me":"escaped key"}`:        {Name: "escaped key"},
		`{"name":"","quantity":-0}`:          {},
		`{"quantity":12,"total_minor":-9223372036854775808,"rate":-1.5e-3,"gift":true}`: {
			Quantity: 12, Total: -1 << 63, Rate: -1.5e-3, Gift: true,
		},
		`{"at":"2027-05-01T18:00:00Z","until":"2027-05-01T18:00:00Z","limit":-7,"base":"b"}`: {
			At: at, Until: &at, Limit: &limit, orderBase: orderBase{"b"},
		},
		`{"until":null,"limit":null,"extra":null}`: {},
		`{"tiers":[{"id":"t1","seats":[1,2]},{}],"notes":{"a":1,"A":2},"extra":{"x":[1,"y"]}}`: {
			Tiers: []orderTier{{"t1", []int{1, 2}}, {}}, Notes: map[string]int{"a": 1, "A": 2}, Extra: map[string]any{"x": []any{1.0, "y"}},
		},
	} {
		var got order
		if err := decodeJSON([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func TestDecode_RefusesAndNamesTheField(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// The text is not JSON.
		{`{`, "body is not valid JSON at byte 2"},
		{`   `, "body is not valid JSON at byte 4"},
		{`{"name":"a"`, "body is not valid JSON at byte 12"},
		{`{"name":"a",}`, "body is not valid JSON at byte 13"},
		{`{"name" "a"}`, "name is not valid JSON at byte 9"},
		{`{"name":'a'}`, "name is not valid JSON at byte 9"},
		{`{"name":"a`, "name is not valid JSON at byte 11"},
		{"{\"name\":\"a\nb\"}", "name is not valid JSON at byte 11"},
		{`{"name":"\x"}`, "name is not valid JSON at byte 10"},
		{`{"name":"\u12g4"}`, "name is not valid JSON at byte 10"},
		{`{"name":"\`, "name is not valid JSON at byte 10"},
		{`{name:"a"}`, "body is not valid JSON at byte 2"},
		{`{"quantity":01}`, "body is not valid JSON at byte 14"},
		{`{"quantity":+1}`, "quantity is not valid JSON at byte 13"},
		{`{"quantity":-}`, "quantity is not valid JSON at byte 14"},
		{`{"rate":1.}`, "rate is not valid JSON at byte 11"},
		{`{"rate":.5}`, "rate is not valid JSON at byte 9"},
		{`{"rate":1e}`, "rate is not valid JSON at byte 11"},
		{`{"rate":NaN}`, "rate is not valid JSON at byte 9"},
		{`{"gift":tru}`, "gift is not valid JSON at byte 9"},
		{`{"gift":truest}`, "body is not valid JSON at byte 13"},
		{`{"tiers":[1 2]}`, "tiers is not valid JSON at byte 13"},
		{`{"tiers":[{}`, "tiers is not valid JSON at byte 13"},
		{"{/**/}", "body is not valid JSON at byte 2"},
		{"\ufeff{}", "body is not valid JSON at byte 1"},
		{"{}\x00", "body has data after its end"},
		// It is not UTF-8.
		{"{\"name\":\"\xff\"}", "name is not valid UTF-8"},
		{"{\"name\":\"\xed\xa0\x80\"}", "name is not valid UTF-8"},
		{"{\"tiers\":[{\"id\":\"a\xc3\"}]}", "tiers[0].id is not valid UTF-8"},
		{"{\"\xff\":1}", "body is not valid UTF-8"},
		{`{"name":"\ud83c"}`, "name has half a surrogate pair"},
		{`{"name":"\udf9f\ud83c"}`, "name has half a surrogate pair"},
		{`{"name":"\ud83c\u0041"}`, "name has half a surrogate pair"},
		// There is more than the body.
		{`{}{}`, "body has data after its end"},
		{`{} x`, "body has data after its end"},
		// A field is unknown, or only looks like a known one.
		{`{"nome":1}`, "nome is not a field of this request"},
		{`{"Name":"a"}`, "Name is not a field of this request"},
		{`{"":1}`, " is not a field of this request"},
		{`{"tiers":[{"id":"t1"},{"x":{"y":1}}]}`, "tiers[1].x is not a field of this request"},
		{`{"nome":1,"nome":2}`, "nome is not a field of this request; nome is not a field of this request"},
		// A key stands twice, at any depth.
		{`{"name":"a","name":"b"}`, "name stands twice"},
		{`{"name":"a","n\u0061me":"b"}`, "name stands twice"},
		{`{"tiers":[{},{"id":"a","seats":[],"id":"a"}]}`, "tiers[1].id stands twice"},
		{`{"notes":{"a":1,"b":2,"a":1}}`, "notes.a stands twice"},
		{`{"extra":[{"a":{"b":1,"\u0062":2}}]}`, "extra[0].a.b stands twice"},
		// A value is of another type.
		{`[]`, "body must be an object"},
		{`"x"`, "body must be an object"},
		{`null`, "body must be an object"},
		{`{"name":1}`, "name must be a string"},
		{`{"name":null}`, "name must be a string"},
		{`{"gift":"true"}`, "gift must be true or false"},
		{`{"gift":0}`, "gift must be true or false"},
		{`{"rate":"1"}`, "rate must be a number"},
		{`{"rate":1e999}`, "rate must be a number"},
		{`{"quantity":"1"}`, "quantity must be a whole number from -9223372036854775808 to 9223372036854775807"},
		{`{"quantity":1.0}`, "quantity must be a whole number from -9223372036854775808 to 9223372036854775807"},
		{`{"quantity":1e2}`, "quantity must be a whole number from -9223372036854775808 to 9223372036854775807"},
		{`{"total_minor":9223372036854775808}`, "total_minor must be a whole number from -9223372036854775808 to 9223372036854775807"},
		{`{"limit":2147483648}`, "limit must be a whole number from -2147483648 to 2147483647"},
		{`{"at":"tomorrow"}`, "at must be a time such as 2027-05-01T18:00:00Z"},
		{`{"at":"2027-05-01"}`, "at must be a time such as 2027-05-01T18:00:00Z"},
		{`{"at":1}`, "at must be a time such as 2027-05-01T18:00:00Z"},
		{`{"at":null}`, "at must be a time such as 2027-05-01T18:00:00Z"},
		{`{"until":"x"}`, "until must be a time such as 2027-05-01T18:00:00Z"},
		{`{"tiers":{}}`, "tiers must be a list"},
		{`{"tiers":null}`, "tiers must be a list"},
		{`{"tiers":[[]]}`, "tiers[0] must be an object"},
		{`{"tiers":[{"seats":[1,2,"3"]}]}`, "tiers[0].seats[2] must be a whole number from -9223372036854775808 to 9223372036854775807"},
		{`{"notes":{"a":"b"}}`, "notes.a must be a whole number from -9223372036854775808 to 9223372036854775807"},
		{`{"extra":1e999}`, "body is not of the form expected"},
		// All fields that are wrong are named, unless the text itself is broken.
		{`{"name":1,"gift":2,"x":3}`, "name must be a string; gift must be true or false; x is not a field of this request"},
		{`{"name":1,"gift":}`, "gift is not valid JSON at byte 18"},
		// It nests too deeply.
		{
			`{"extra":` + strings.Repeat("[", jsonDepthMax) + strings.Repeat("]", jsonDepthMax) + `}`,
			"extra" + strings.Repeat("[0]", jsonDepthMax-1) + " nests too deeply",
		},
		{`{"x":` + strings.Repeat(`{"a":`, 50_000), "x" + strings.Repeat(".a", jsonDepthMax-1) + " nests too deeply"},
		// A name is not echoed at any length.
		{`{"` + strings.Repeat("x", 1000) + `":1}`, strings.Repeat("x", 100) + " is not a field of this request"},
	} {
		var refusal *evently.Error
		err := decodeJSON([]byte(c.text), new(order))
		if !errors.As(err, &refusal) || refusal.Code != evently.CodeInvalidRequest || refusal.Fields.String() != c.want {
			t.Errorf("%.200s:\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestDecode_NamesAtMostSoManyFields(t *testing.T) {
	var refusal *evently.Error
	err := decodeJSON([]byte(`{"tiers":[`+strings.Repeat("1,", 1000)+`1]}`), new(order))
	if !errors.As(err, &refusal) || len(refusal.Fields) != 100 {
		t.Fatalf("got %v", err)
	}
}

// FuzzDecode: what decode takes, a strict encoding/json takes and gives the same, and no key in it stands twice.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a","quantity":1,"total_minor":2,"rate":1.5,"gift":true,"at":"2027-05-01T18:00:00Z","until":null,"limit":3}`,
		`{"tiers":[{"id":"\u00e9\ud83c\udf9f","seats":[1,-2]}],"notes":{"a":1},"extra":[null,{"b":[true,1e3]}],"base":""}`,
		`{"Name":"a"}`, `{"name":"a","n\u0061me":"b"}`, `{"extra":{"a":1,"a":2}}`,
		"{\"name\":\"\xff\"}", `{} {}`, `{"rate":01}`, `{"extra":1e999}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want order
		if decodeJSON(text, &got) != nil {
			return
		}
		if !utf8.Valid(text) {
			t.Fatalf("not UTF-8: %q", text)
		}
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&want); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, err := strict.Token(); !errors.Is(err, io.EOF) {
			t.Fatalf("%q: data after the end: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %+v, want %+v", text, got, want)
		}
		if err := uniqueKeys(json.NewDecoder(bytes.NewReader(text))); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// uniqueKeys reads one value and returns an error when an object in it has a key twice.
func uniqueKeys(tokens *json.Decoder) error {
	token, err := tokens.Token()
	if err != nil {
		return err
	}
	open, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	seen := make(map[string]bool)
	for tokens.More() {
		if open == '{' {
			key, err := tokens.Token()
			if err != nil {
				return err
			}
			if seen[key.(string)] {
				return fmt.Errorf("key %q stands twice", key)
			}
			seen[key.(string)] = true
		}
		if err := uniqueKeys(tokens); err != nil {
			return err
		}
	}
	_, err = tokens.Token()
	return err
}

func TestShape_PanicsOnWhatNoBodyHas(t *testing.T) {
	for _, dst := range []any{
		new(struct{ X chan int }), new(struct {
			X chan int `json:"x"`
		}), new(struct {
			X int `json:"x,string"`
		}),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T: no panic", dst)
				}
			}()
			_ = decodeJSON([]byte(`{}`), dst)
		}()
	}
}

var echoRoutes = []route{
	{method: http.MethodPost, path: "/echo", handle: func(c *gin.Context) error {
		var asked order
		if err := decode(c, &asked); err != nil {
			return err
		}
		writeJSON(c, http.StatusOK, &asked)
		return nil
	}},
	{method: http.MethodPost, path: "/bare", noBody: true, handle: func(c *gin.Context) error {
		writeNothing(c)
		return nil
	}},
}

func TestBody_MediaType(t *testing.T) {
	w := newSite(t, nil, echoRoutes...)
	for mediaType, ok := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON;charset=UTF-8": true,
		"": false, "text/plain": false, "application/json; charset=latin1": false, "application/json;": true, "application/xml": false,
		"application/x-www-form-urlencoded": false, "application/json, text/plain": false, "application/merge-patch+json": false, ";": false,
	} {
		a := w.do(t, "POST", "/echo", `{"name":"a"}`, "Content-Type", mediaType)
		if ok && a.status != http.StatusOK {
			t.Errorf("%q: %d %s", mediaType, a.status, a.body)
		} else if !ok {
			a.problem(t, codeUnsupportedMediaType)
		}
	}
}

func TestBody_Size(t *testing.T) {
	w := newSite(t, nil, echoRoutes...)
	sized := func(bytes int) string {
		const frame = `{"name":""}`
		return `{"name":"` + strings.Repeat("x", bytes-len(frame)) + `"}`
	}
	for _, path := range []string{"/echo", "/nowhere"} {
		w.do(t, "POST", path, sized(bodyBytesMax+1)).problem(t, codeBodyTooLarge)
	}
	if a := w.do(t, "POST", "/echo", sized(bodyBytesMax)); a.status != http.StatusOK {
		t.Errorf("largest body: %d %.200s", a.status, a.body)
	}
	for bytes, status := range map[int]int{bodyBytesMax: http.StatusOK, bodyBytesMax + 1: http.StatusRequestEntityTooLarge} {
		// Without a Content-Length, as when a client streams.
		request, err := http.NewRequestWithContext(t.Context(), "POST", w.url+"/echo", io.MultiReader(strings.NewReader(sized(bytes))))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := w.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != status {
			t.Errorf("%d bytes in chunks: %d", bytes, response.StatusCode)
		}
	}
}

func TestBody_MissingOrNotWanted(t *testing.T) {
	w := newSite(t, nil, echoRoutes...)
	if got := w.do(t, "POST", "/echo", "", "Content-Type", "application/json").field(t, "body"); got != "is missing" {
		t.Error(got)
	}
	for _, body := range []string{"", "{}", " { } "} {
		if a := w.do(t, "POST", "/bare", body); a.status != http.StatusNoContent || len(a.body) > 0 {
			t.Errorf("%q: %d %s", body, a.status, a.body)
		}
	}
	w.do(t, "POST", "/bare", `{"payment_token":"x"}`).field(t, "payment_token")
	w.do(t, "POST", "/bare", `{}`, "Content-Type", "text/plain").problem(t, codeUnsupportedMediaType)
	w.do(t, "POST", "/bare", `null`).field(t, "body")
}

// A body is read into memory that later requests use again: nothing of one may show up in another.
func TestBody_IsNotMixedUpBetweenRequests(t *testing.T) {
	w := newSite(t, nil, echoRoutes...)
	failures := make(chan error)
	for worker := range 8 {
		go func() {
			var err error
			for i := range 50 {
				name := strings.Repeat(fmt.Sprintf("%d-%d.", worker, i), 1+i*worker)
				var got order
				a, tryErr := w.try(t.Context(), "POST", "/echo", `{"name":"`+name+`"}`)
				if tryErr != nil {
					err = tryErr
				} else if jsonErr := json.Unmarshal(a.body, &got); jsonErr != nil || got.Name != name {
					err = fmt.Errorf("sent name %q, got %d %s", name, a.status, a.body)
				}
			}
			failures <- err
		}()
	}
	for range 8 {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
}

func TestParseTime_IsStrict(t *testing.T) {
	for _, text := range []string{"2027-05-01T18:00:00Z", "2027-05-01T18:00:00.123456789+05:30", "2027-05-01T18:00:00-23:59", "2027-05-01T18:00:00+00:00"} {
		if _, ok := parseTime(text); !ok {
			t.Errorf("%q was refused", text)
		}
	}
	for _, text := range []string{
		"", "2027-05-01", "2027-05-01T18:00:00", "2027-05-01T18:00:00,5Z", "2027-05-01T8:00:00Z", "2027-05-01T18:00:00+24:00",
		"2027-05-01T18:00:00-24:00", "2027-05-01T18:00:00+05:60", "2027-05-01T18:00:00+05", "2027-05-01T24:00:00Z", "2027-05-01 18:00:00Z",
	} {
		if _, ok := parseTime(text); ok {
			t.Errorf("%q was taken", text)
		}
		w := struct {
			At time.Time `json:"at"`
		}{}
		if err := decodeJSON([]byte(`{"at":"`+text+`"}`), &w); err == nil {
			t.Errorf("%q was taken in a body", text)
		}
	}
}
