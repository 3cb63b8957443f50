package apitest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/http/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// document has what the checks turn on: null unions inside a referenced schema, headers, an empty answer, a problem.
const document = `{
  "openapi": "3.1.0",
  "info": { "title": "Box office", "version": "1" },
  "security": [{ "token": [] }],
  "paths": {
    "/seats/{id}": {
      "get": {
        "security": [],
        "parameters": [
          { "name": "id", "in": "path", "required": true, "schema": { "type": "string" } },
          { "name": "limit", "in": "query", "schema": { "type": "integer", "minimum": 1 } }
        ],
        "responses": {
          "200": {
            "description": "A seat.",
            "headers": { "ETag": { "$ref": "#/components/headers/ETag" } },
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Seat" } } }
          },
          "304": { "description": "Not modified.", "headers": { "ETag": { "$ref": "#/components/headers/ETag" } } },
          "404": {
            "description": "No seat.",
            "content": {
              "application/problem+json": {
                "schema": { "allOf": [{ "$ref": "#/components/schemas/Problem" }, { "properties": { "code": { "enum": ["no_seat"] } } }] }
              }
            }
          }
        }
      },
      "post": {
        "parameters": [
          { "name": "id", "in": "path", "required": true, "schema": { "type": "string" } },
          { "name": "Idempotency-Key", "in": "header", "required": true, "schema": { "type": "string" } }
        ],
        "requestBody": {
          "required": true,
          "content": {
            "application/json": {
              "schema": {
                "type": "object", "additionalProperties": false, "required": ["quantity"],
                "properties": { "quantity": { "type": "integer" } }
              }
            }
          }
        },
        "responses": { "204": { "description": "Taken.", "headers": { "Retry-After": { "schema": { "type": "integer" } } } } }
      }
    },
    "/help": {
      "get": {
        "security": [],
        "responses": { "200": { "description": "Help.", "content": { "text/html": { "schema": { "type": "string" } } } } }
      }
    }
  },
  "components": {
    "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
    "headers": { "ETag": { "required": true, "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" } } },
    "schemas": {
      "Time": { "type": ["string", "null"], "format": "date-time" },
      "Row": {
        "type": "object", "additionalProperties": false, "required": ["n", "sold_at"],
        "properties": { "n": { "type": "integer", "minimum": 1 }, "sold_at": { "$ref": "#/components/schemas/Time" } }
      },
      "Seat": {
        "type": "object", "additionalProperties": false, "required": ["id", "row"],
        "properties": { "id": { "type": "string" }, "row": { "$ref": "#/components/schemas/Row" } }
      },
      "Problem": {
        "type": "object", "additionalProperties": false, "required": ["code"], "properties": { "code": { "type": "string" } }
      }
    }
  }
}`

const seat = `{"id":"a","row":{"n":1,"sold_at":null}}`

// answer is what the server of a test case says.
type answer struct {
	status int
	header map[string]string
	body   string
}

func ok(body string) answer {
	return answer{200, map[string]string{"Content-Type": "application/json; charset=utf-8", "ETag": `"1"`}, body}
}

func problem(status int, body string) answer {
	return answer{status, map[string]string{"Content-Type": "application/problem+json"}, body}
}

func (a answer) with(name, value string) answer {
	header := map[string]string{name: value}
	for k, v := range a.header {
		if k != name {
			header[k] = v
		}
	}
	return answer{a.status, header, a.body}
}

// serve returns a server that gives the document, and the answer to everything else.
func serve(t *testing.T, a answer) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/openapi.json" {
			_, _ = io.WriteString(w, document)
			return
		}
		w.Header()["Content-Type"] = nil // no guess
		for name, value := range a.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(server.Close)
	return server
}

// recorder is a test that takes down what it is told is wrong.
type recorder struct {
	testing.TB
	found []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.found = append(r.found, fmt.Sprintf(format, args...))
}

// exchange sends a request to a server with one answer and returns what the client found wrong.
func exchange(t *testing.T, request *http.Request, a answer) []string {
	t.Helper()
	rec := &recorder{TB: t}
	server := serve(t, a)
	client := apitest.NewClient(rec, server.URL)
	request.URL.Scheme, request.URL.Host = "http", strings.TrimPrefix(server.URL, "http://")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := a.body; request.Method != http.MethodHead && string(body) != want {
		t.Errorf("client was given the body %q, want %q", body, want)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return rec.found
}

func newRequest(t *testing.T, method, path, body string, header ...string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://box"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	return request
}

func wrong(request *http.Request) *http.Request {
	return request.WithContext(apitest.Wrong(request.Context()))
}

func wantFound(t *testing.T, found []string, want string) {
	t.Helper()
	if want == "" && len(found) > 0 {
		t.Errorf("found %q, want nothing", found)
	}
	if want != "" && (len(found) != 1 || !strings.Contains(found[0], want)) {
		t.Errorf("found %q, want one finding with %q", found, want)
	}
}

func TestClient_ChecksResponses(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		answer answer
		want   string // in the finding; "": nothing is found
	}{
		"as documented":             {"GET", ok(seat), ""},
		"nullable value set":        {"GET", ok(`{"id":"a","row":{"n":1,"sold_at":"2027-01-01T00:00:00Z"}}`), ""},
		"documented problem":        {"GET", problem(404, `{"code":"no_seat"}`), ""},
		"not modified":              {"GET", answer{304, map[string]string{"ETag": `"1"`}, ""}, ""},
		"head":                      {"HEAD", ok(seat), ""},
		"undocumented status":       {"GET", problem(409, `{"code":"no_seat"}`), "status 409 is not documented"},
		"undocumented head status":  {"HEAD", problem(409, ""), "status 409 is not documented"},
		"undocumented 301":          {"GET", answer{301, map[string]string{"Location": "/"}, ""}, "status 301 is not documented"},
		"extra field":               {"GET", ok(`{"id":"a","row":{"n":1,"sold_at":null},"colour":"red"}`), "colour"},
		"extra field inside":        {"GET", ok(`{"id":"a","row":{"n":1,"sold_at":null,"colour":"red"}}`), "colour"},
		"missing field":             {"GET", ok(`{"id":"a"}`), "row"},
		"missing field inside":      {"GET", ok(`{"id":"a","row":{"n":1}}`), "sold_at"},
		"wrong type":                {"GET", ok(`{"id":1,"row":{"n":1,"sold_at":null}}`), "string"},
		"fraction":                  {"GET", ok(`{"id":"a","row":{"n":1.5,"sold_at":null}}`), "integer"},
		"out of bounds":             {"GET", ok(`{"id":"a","row":{"n":0,"sold_at":null}}`), "1"},
		"null that is not nullable": {"GET", ok(`{"id":null,"row":{"n":1,"sold_at":null}}`), "null"},
		"wrong type of a nullable":  {"GET", ok(`{"id":"a","row":{"n":1,"sold_at":7}}`), "string"},
		"wrong format":              {"GET", ok(`{"id":"a","row":{"n":1,"sold_at":"yesterday"}}`), "date-time"},
		"undocumented code":         {"GET", problem(404, `{"code":"gone"}`), "no_seat"},
		"extra field of a problem":  {"GET", problem(404, `{"code":"no_seat","stack":"main.go"}`), "stack"},
		"wrong content type":        {"GET", ok(seat).with("Content-Type", "text/plain"), "text/plain"},
		"no content type":           {"GET", answer{200, map[string]string{"ETag": `"1"`}, seat}, `content type ""`},
		"problem as plain JSON":     {"GET", problem(404, `{"code":"no_seat"}`).with("Content-Type", "application/json"), "application/json"},
		"missing header":            {"GET", answer{200, map[string]string{"Content-Type": "application/json"}, seat}, "ETag is missing"},
		"missing header of a 304":   {"GET", answer{304, nil, ""}, "ETag is missing"},
		"missing header of a head":  {"HEAD", answer{200, map[string]string{"Content-Type": "application/json"}, ""}, "ETag is missing"},
		"wrong header":              {"GET", ok(seat).with("ETag", "W/1"), "ETag"},
		"header of another answer":  {"GET", ok(seat).with("Retry-After", "1"), "Retry-After is not documented"},
		"name twice":                {"GET", ok(`{"id":"a","id":"b","row":{"n":1,"sold_at":null}}`), `name "id" stands twice`},
		"name twice inside":         {"GET", ok(`{"id":"a","row":{"n":1,"n":1,"sold_at":null}}`), `name "n" stands twice`},
		"data after the value":      {"GET", ok(seat + `{}`), "data after the value"},
		"cut short":                 {"GET", ok(`{"id":"a"`), "JSON"},
		"no body":                   {"GET", ok(""), "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFound(t, exchange(t, newRequest(t, test.method, "/seats/a", ""), test.answer), test.want)
		})
	}
}

func TestClient_ChecksRequests(t *testing.T) {
	const one = `{"quantity":1}`
	taken := answer{204, nil, ""}
	page := answer{200, map[string]string{"Content-Type": "text/html; charset=utf-8"}, "<p>"}
	good := []string{"Content-Type", "application/json", "Idempotency-Key", "k", "Authorization", "Bearer x"}
	for name, test := range map[string]struct {
		request *http.Request
		answer  answer
		want    string
	}{
		"as documented":        {newRequest(t, "POST", "/seats/a", one, good...), taken, ""},
		"documented query":     {newRequest(t, "GET", "/seats/a?limit=2", ""), ok(seat), ""},
		"extra field":          {newRequest(t, "POST", "/seats/a", `{"quantity":1,"colour":"red"}`, good...), taken, "colour"},
		"missing field":        {newRequest(t, "POST", "/seats/a", `{}`, good...), taken, "quantity"},
		"name twice":           {newRequest(t, "POST", "/seats/a", `{"quantity":1,"quantity":2}`, good...), taken, "stands twice"},
		"missing body":         {newRequest(t, "POST", "/seats/a", "", good...), taken, "required"},
		"undocumented body":    {newRequest(t, "GET", "/seats/a", "{}"), ok(seat), "not allowed"},
		"wrong media type":     {newRequest(t, "POST", "/seats/a", one, append(good, "Content-Type", "text/plain")...), taken, "text/plain"},
		"missing header":       {newRequest(t, "POST", "/seats/a", one, good[0], good[1], good[4], good[5]), taken, "Idempotency-Key"},
		"missing token":        {newRequest(t, "POST", "/seats/a", one, good[:4]...), taken, "no bearer token"},
		"undocumented query":   {newRequest(t, "GET", "/seats/a?colour=red", ""), ok(seat), "colour"},
		"query of wrong type":  {newRequest(t, "GET", "/seats/a?limit=many", ""), ok(seat), "limit"},
		"query out of bounds":  {newRequest(t, "GET", "/seats/a?limit=0", ""), ok(seat), "limit"},
		"wrong on purpose":     {wrong(newRequest(t, "GET", "/seats/a?limit=many", "")), problem(404, `{"code":"no_seat"}`), ""},
		"wrong, answer too":    {wrong(newRequest(t, "GET", "/seats/a?limit=many", "")), problem(400, `{"code":"no_seat"}`), "status 400"},
		"page":                 {newRequest(t, "GET", "/help", ""), page, ""},
		"page as text":         {newRequest(t, "GET", "/help", ""), page.with("Content-Type", "text/plain"), "text/plain"},
		"preflight":            {newRequest(t, "OPTIONS", "/seats/a", ""), taken, ""},
		"unknown path":         {wrong(newRequest(t, "GET", "/chairs", "")), problem(404, `{}`), ""},
		"unknown path served":  {wrong(newRequest(t, "GET", "/chairs", "")), problem(400, `{}`), "status is 400, want 404"},
		"unknown path as text": {wrong(newRequest(t, "GET", "/chairs", "")), problem(404, `{}`).with("Content-Type", "text/plain"), "text/plain"},
		"unknown method":       {wrong(newRequest(t, "PUT", "/seats/a", "")), problem(405, `{}`).with("Allow", "GET, POST"), ""},
		"unknown method, mute": {wrong(newRequest(t, "PUT", "/seats/a", "")), problem(405, `{}`), "Allow is missing"},
	} {
		t.Run(name, func(t *testing.T) { wantFound(t, exchange(t, test.request, test.answer), test.want) })
	}
}

func TestClient_FindsRequestsOutsideTheDocument(t *testing.T) {
	found := exchange(t, newRequest(t, "GET", "/chairs", ""), problem(404, `{}`))
	wantFound(t, found, "is not in the document")
}

func TestTransport_LeavesTheRequestAlone(t *testing.T) {
	contract, err := apitest.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	var sent string
	transport := &apitest.Transport{T: t, Contract: contract, Base: roundTrip(func(request *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(request.Body)
		sent = string(body)
		return &http.Response{StatusCode: 204, Header: http.Header{}, Body: http.NoBody}, err
	})}
	const body = `{"quantity":1}`
	request := newRequest(t, "POST", "/seats/a", body, "Content-Type", "application/json", "Idempotency-Key", "k", "Authorization", "Bearer x")
	header := request.Header.Clone()
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 204 || sent != body {
		t.Errorf("status %d and %q were sent, want 204 and %q", response.StatusCode, sent, body)
	}
	if fmt.Sprint(request.Header) != fmt.Sprint(header) || request.URL.Path != "/seats/a" {
		t.Errorf("request became %v %v, was %v", request.URL, request.Header, header)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func TestParse_RefusesOtherDocuments(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":            "{",
		"older version":       strings.Replace(document, "3.1.0", "3.0.3", 1),
		"reference to naught": strings.Replace(document, "schemas/Seat", "schemas/Chair", 1),
	} {
		if _, err := apitest.Parse([]byte(text)); err == nil {
			t.Errorf("%s: parsed without an error", name)
		}
	}
}
