package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/evently/evently"
	"github.com/evently/evently/http/apitest"
)

// request makes a request of an operation out of the document's examples.
func (o *operation) request(t *testing.T, bearer string) (path, body string, headers []string) {
	t.Helper()
	path = o.path
	for _, parameter := range o.Parameters {
		example := fmt.Sprint(parameter.Value.Example)
		switch {
		case parameter.Value.In == openapi3.ParameterInPath:
			path = strings.ReplaceAll(path, "{"+parameter.Value.Name+"}", example)
		case parameter.Value.In == openapi3.ParameterInHeader && parameter.Value.Required:
			headers = append(headers, parameter.Value.Name, example)
		}
	}
	if o.RequestBody != nil {
		media := o.RequestBody.Value.Content["application/json"]
		example := media.Example
		for _, name := range slices.Sorted(maps.Keys(media.Examples)) {
			example = media.Examples[name].Value.Value
		}
		text, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		body = string(text)
	}
	if o.needsToken() {
		headers = append(headers, "Authorization", bearer)
	}
	return path, body, headers
}

// exampleEvent is the event that the examples speak of.
const exampleEvent = "evt_0c9h4w2k7m3qe"

// Each refusal that all operations of a kind have is provoked with the document's own examples; the client checks that the
// answer is as described.
func TestOpenAPI_DescribesTheRefusals(t *testing.T) {
	w, box := newBoxSite(t)
	w.client = apitest.NewClient(t, w.url)
	id, err := evently.ParseEventID(exampleEvent)
	if err != nil {
		t.Fatal(err)
	}
	bearer, who := w.token(t, evently.RoleAdmin)
	box.add(box.event(id, who.User, seats("Stalls", 120, 4500), seats("Balcony", 40, 2900)), nil)
	user, _ := w.token(t, evently.RoleUser)
	limited := newSite(t, func(config *Config) { config.AddressLimit = Limit{1, time.Hour} })
	limited.do(t, http.MethodGet, "/livez", "")
	limited.client = &http.Client{Transport: &apitest.Transport{T: t, Contract: parseContract(t), Base: limited.client.Transport}}

	wrong := apitest.Wrong(t.Context())
	operations(t, func(t *testing.T, o *operation) {
		path, body, headers := o.request(t, bearer)
		want := func(site *site, ctx context.Context, status int, body string, headers ...string) {
			t.Helper()
			if got, err := site.try(ctx, o.method, path, body, headers...); err != nil || got.status != status {
				t.Errorf("got %v, %v; want status %d", got, err, status)
			}
		}
		described := func(status int) bool { return o.Responses.Status(status) != nil }
		want(limited, t.Context(), http.StatusTooManyRequests, body, headers...)
		if o.needsToken() {
			want(w, wrong, http.StatusUnauthorized, body, headers[:len(headers)-2]...)
		}
		if forbidden := o.Responses.Status(http.StatusForbidden); forbidden != nil && forbidden.Ref == "#/components/responses/Forbidden" {
			want(w, t.Context(), http.StatusForbidden, body, append(headers[:len(headers)-2:len(headers)-2], "Authorization", user)...)
		}
		if described(http.StatusUnsupportedMediaType) {
			want(w, wrong, http.StatusBadRequest, `{"colour":"red"}`, headers...)
			want(w, wrong, http.StatusRequestEntityTooLarge, strings.Repeat(" ", bodyBytesMax+1), headers...)
			want(w, wrong, http.StatusUnsupportedMediaType, "quantity=2", append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
		}
		if described(http.StatusNotFound) && strings.Contains(o.path, "{id}") {
			path = strings.ReplaceAll(o.path, "{id}", "nobody")
			want(w, t.Context(), http.StatusNotFound, body, headers...)
		}
	})
	for _, fault := range []error{evently.ErrOverloaded, errors.New("disk on fire")} {
		broken := newSite(t, func(config *Config) {
			down := &fakeBox{fail: fault, clock: w.clock}
			down.behind(config)
			config.Webhooks.(*fakeWebhooks).failWith(fault)
			config.System = func(context.Context, evently.EventID) (*System, error) { return nil, fault }
		})
		broken.accounts.failWith(fault)
		broken.client = &http.Client{Transport: &apitest.Transport{T: t, Contract: parseContract(t), Base: broken.client.Transport}}
		bearer, _ := broken.token(t, evently.RoleAdmin)
		operations(t, func(t *testing.T, o *operation) {
			path, body, headers := o.request(t, bearer)
			got := broken.do(t, o.method, path, body, headers...)
			if want := refusalOf(fault).Code; o.needsToken() && !strings.Contains(string(got.body), string(want)) {
				t.Errorf("status %d, %s; want a problem %s", got.status, got.body, want)
			}
		})
	}
}

func parseContract(t *testing.T) *apitest.Contract {
	t.Helper()
	contract, err := apitest.Parse(openapiDocument)
	if err != nil {
		t.Fatal(err)
	}
	return contract
}

// The tour goes through every operation's success and the refusals of its own; the client checks that each request and
// answer is as described.
func TestOpenAPI_DescribesTheAnswers(t *testing.T) {
	w, box := newBoxSite(t)
	w.client = apitest.NewClient(t, w.url)
	administrator, boss := w.token(t, evently.RoleAdmin)
	organizer, who := w.token(t, evently.RoleOrganizer)
	user, _ := w.token(t, evently.RoleUser)
	visited := map[string]bool{}
	// step makes a request to an operation "METHOD /path?query", whose parameter is id, or whose two are on both sides of a blank.
	step := func(status int, operation, id, bearer, body string, headers ...string) *answer {
		t.Helper()
		method, path, _ := strings.Cut(operation, " ")
		template, _, _ := strings.Cut(path, "?")
		visited[method+" "+template] = visited[method+" "+template] || status < 300
		if bearer != "" {
			headers = append(headers, "Authorization", bearer)
		}
		ctx := t.Context()
		if status == http.StatusBadRequest || status == http.StatusPreconditionRequired {
			ctx = apitest.Wrong(ctx)
		}
		first, second, _ := strings.Cut(id, " ")
		path = strings.Replace(path, pathTemplate.FindString(path), first, 1)
		got, err := w.try(ctx, method, pathTemplate.ReplaceAllString(path, second), body, headers...)
		if err != nil {
			t.Fatal(err)
		}
		if got.status != status {
			t.Fatalf("%s: status %d, want %d: %s", operation, got.status, status, got.body)
		}
		return got
	}
	field := func(a *answer, name string) string {
		t.Helper()
		var fields map[string]any
		a.decode(t, &fields)
		return fields[name].(string)
	}

	// Accounts.
	const ada = `{"email":"ada@example.com","password":"correct horse battery","name":"Ada"}`
	const login = `{"email":"ada@example.com","password":"correct horse battery"}`
	step(201, "POST /register", "", "", ada)
	step(201, "POST /register", "", "", ada)
	step(200, "POST /login", "", "", login, "Idempotency-Key", "k")
	step(200, "POST /login", "", "", login, "Idempotency-Key", "k")
	step(422, "POST /login", "", "", strings.Replace(login, "horse", "mule", 1), "Idempotency-Key", "k")
	step(401, "POST /login", "", "", `{"email":"ada@example.com","password":"wrong"}`)
	step(202, "POST /verify/resend", "", "", `{"email":"ada@example.com"}`)
	code := w.lastCode(t, evently.VerifyEmailCode)
	step(400, "POST /verify", "", "", codeBody("ada@example.com", another(code)))
	step(200, "POST /verify", "", "", codeBody("ada@example.com", code))
	step(202, "POST /password/forgot", "", "", `{"email":"ada@example.com"}`)
	code = w.lastCode(t, evently.ResetPasswordCode)
	step(400, "POST /password/reset", "", "", resetBody("ada@example.com", another(code), "correct horse battery"))
	step(204, "POST /password/reset", "", "", resetBody("ada@example.com", code, "correct horse battery"))
	tokens := step(200, "POST /login", "", "", login)
	refresh := `{"refresh_token":"` + field(tokens, "refresh_token") + `"}`
	tokens = step(200, "POST /token/refresh", "", "", refresh)
	session := "Bearer " + field(tokens, "access_token")
	step(200, "GET /me", "", session, "")
	passwords := `{"password":"correct horse battery","new_password":"correct horse battery"}`
	step(204, "POST /me/password", "", session, passwords)
	step(200, "GET /me/security?limit=5", "", session, "")
	step(204, "DELETE /sessions", "", session, "")
	var sessions struct{ Data []sessionJSON }
	step(200, "GET /sessions", "", session, "").decode(t, &sessions)
	step(204, "DELETE /sessions/{id}", sessions.Data[0].ID, session, "")
	step(401, "POST /token/refresh", "", "", refresh)
	another := "Bearer " + field(step(200, "POST /login", "", "", login), "access_token")
	step(404, "DELETE /sessions/{id}", sessions.Data[0].ID, another, "")
	step(204, "POST /logout", "", another, "{}", "Idempotency-Key", "k")
	step(401, "GET /me", "", another, "")
	for range evently.SignInFailuresMax {
		step(401, "POST /login", "", "", `{"email":"eve@example.com","password":"wrong"}`)
	}
	step(429, "POST /login", "", "", `{"email":"eve@example.com","password":"wrong"}`)

	// Users.
	step(200, "GET /admin/users?q=ada&role=user&limit=1", "", administrator, "")
	step(400, "GET /admin/users?role=boss", "", administrator, "")
	step(200, "GET /admin/users/{id}", who.User.String(), administrator, "")
	step(200, "PUT /admin/users/{id}/role", boss.User.String(), administrator, `{"role":"admin"}`)
	step(400, "PUT /admin/users/{id}/role", boss.User.String(), administrator, `{"role":"boss"}`)
	step(409, "PUT /admin/users/{id}/role", boss.User.String(), administrator, `{"role":"user"}`)

	// Events.
	const details = `"name":"Jazz","timezone":"Europe/Berlin","starts_at":"2027-04-01T20:00:00+02:00","ends_at":"2027-04-01T23:00:00+02:00",
		"currency":"EUR","sales_start_at":null,"hold_ttl_seconds":60,"max_per_booking":4`
	id := field(step(201, "POST /admin/events", "", organizer, `{`+details+`,"capacity":5,"base_price_minor":4500,"status":"draft"}`), "id")
	step(404, "GET /events/{id}", id, "", "")
	step(200, "GET /admin/events?status=draft,published&limit=1", "", organizer, "")
	step(200, "GET /admin/events/{id}", id, organizer, "")
	step(304, "GET /admin/events/{id}", id, organizer, "", "If-None-Match", `"1"`)
	revision := `{` + details + `,"tiers":[{"id":"t1","name":"Floor","capacity":5,"base_price_minor":4500},
		{"name":"Balcony","capacity":3,"base_price_minor":0}]}`
	step(428, "PUT /admin/events/{id}", id, organizer, revision)
	step(200, "PUT /admin/events/{id}", id, organizer, revision, "If-Match", `"1"`)
	step(412, "PUT /admin/events/{id}", id, organizer, revision, "If-Match", `"1"`)
	step(200, "POST /admin/events/{id}/publish", id, organizer, "")
	step(409, "DELETE /admin/events/{id}", id, organizer, "")
	draft := field(step(201, "POST /admin/events", "", organizer, `{`+details+`,"capacity":5,"base_price_minor":0,"status":"draft"}`), "id")
	step(204, "DELETE /admin/events/{id}", draft, organizer, "")
	step(200, "GET /events?q=jazz&category=&city=&from=2027-03-01T00:00:00Z&to=2027-05-01T00:00:00Z&sort=popularity&limit=1", "", "", "")
	step(400, "GET /events?limit=0&sort=price", "", "", "")
	step(200, "GET /events/popular", "", "", "")
	step(200, "GET /events/{id}", id, "", "")
	step(304, "GET /events/{id}", id, "", "", "If-None-Match", `"3"`)
	step(200, "GET /events/{id}/availability", id, "", "")

	// Reservations.
	seat, both := `{"items":[{"tier_id":"t1","quantity":1}]}`, `{"items":[{"tier_id":"t1","quantity":1},{"tier_id":"t2","quantity":3}]}`
	booking := field(step(201, "POST /events/{id}/book", id, user, both, "Idempotency-Key", "1"), "id")
	step(201, "POST /events/{id}/book", id, user, both, "Idempotency-Key", "1")
	step(422, "POST /events/{id}/book", id, user, seat, "Idempotency-Key", "1")
	step(409, "POST /events/{id}/book", id, user, both, "Idempotency-Key", "2") // sold out
	step(422, "POST /events/{id}/book", id, user, `{"items":[{"tier_id":"t1","quantity":5}]}`, "Idempotency-Key", "3")
	step(422, "POST /events/{id}/book", id, user, `{"items":[{"tier_id":"t9","quantity":1}]}`, "Idempotency-Key", "4")
	step(400, "POST /events/{id}/book", id, user, seat)
	step(200, "GET /reservations/{id}", booking, user, "")
	step(200, "POST /reservations/{id}/confirm", booking, user, `{"payment_token":null}`, "Idempotency-Key", "5")
	step(200, "POST /reservations/{id}/confirm", booking, user, `{"payment_token":null}`, "Idempotency-Key", "5")
	step(409, "DELETE /reservations/{id}", booking, user, "")
	given := field(step(201, "POST /events/{id}/book", id, user, seat, "Idempotency-Key", "6"), "id")
	step(204, "DELETE /reservations/{id}", given, user, "")
	step(409, "POST /reservations/{id}/confirm", given, user, "")
	late := field(step(201, "POST /events/{id}/book", id, user, seat, "Idempotency-Key", "7"), "id")
	w.clock.add(61 * time.Second)
	step(410, "POST /reservations/{id}/confirm", late, user, "")
	step(410, "POST /bookings/{id}/cancel", late, user, "")
	step(200, "GET /bookings?status=confirmed,cancelled&limit=1", "", user, "")
	step(400, "GET /bookings?status=lost", "", user, "")
	step(200, "GET /bookings/{id}", booking, user, "")
	step(404, "GET /bookings/{id}", booking, organizer, "")

	// Webhooks.
	const hook = `{"url":"https://hooks.example.com/","events":["booking.confirmed","waitlist.booked"]}`
	hookID := field(step(201, "POST /admin/webhooks", "", organizer, hook, "Idempotency-Key", "10"), "id")
	step(201, "POST /admin/webhooks", "", organizer, hook, "Idempotency-Key", "10")
	step(400, "POST /admin/webhooks", "", organizer, `{"url":"https://private.example.com/","events":["booking.confirmed"]}`)
	step(200, "GET /admin/webhooks?limit=1", "", organizer, "")
	step(200, "GET /admin/webhooks/{id}", hookID, organizer, "")
	ping := field(step(202, "POST /admin/webhooks/{id}/test", hookID, organizer, ""), "id")
	w.webhooks.attempted(200, "")
	step(200, "GET /admin/webhooks/{id}/deliveries?limit=1", hookID, organizer, "")
	step(202, "POST /admin/webhooks/{id}/deliveries/{delivery_id}/redeliver", hookID+" "+ping, organizer, "")
	w.webhooks.attempted(0, "timeout")
	step(200, "GET /admin/webhooks/{id}/deliveries", hookID, organizer, "")
	step(200, "POST /admin/webhooks/{id}/rotate-secret", hookID, organizer, "")
	step(200, "PUT /admin/webhooks/{id}", hookID, organizer, strings.Replace(hook, "}", `,"active":false}`, 1))
	step(409, "POST /admin/webhooks/{id}/test", hookID, organizer, "")
	step(409, "POST /admin/webhooks/{id}/deliveries/{delivery_id}/redeliver", hookID+" "+ping, organizer, "")
	step(200, "POST /admin/webhooks/{id}/enable", hookID, organizer, "{}")
	step(204, "DELETE /admin/webhooks/{id}", hookID, organizer, "")
	for range evently.WebhooksMax {
		step(201, "POST /admin/webhooks", "", organizer, hook)
	}
	step(409, "POST /admin/webhooks", "", organizer, hook)

	// The end of an event.
	step(200, "GET /admin/events/{id}/bookings?status=confirmed", id, organizer, "")
	step(200, "GET /admin/events/capacity_utilization?limit=2", "", organizer, "")
	revision = `{` + details + `,"tiers":[{"id":"t2","name":"Balcony","capacity":1,"base_price_minor":0}]}` // fewer than are booked
	step(409, "PUT /admin/events/{id}", id, organizer, revision, "If-Match", `"3"`)
	step(200, "POST /bookings/{id}/cancel", booking, user, "{}", "Idempotency-Key", "8")
	step(200, "POST /bookings/{id}/cancel", booking, user, "")
	step(200, "POST /admin/events/{id}/cancel", id, organizer, "")
	step(200, "GET /events/{id}/stream", id, "", "")
	var cancelled availabilityJSON
	step(200, "GET /events/{id}/availability", id, "", "").decode(t, &cancelled)
	step(204, "GET /events/{id}/stream?last_event_id="+fmt.Sprint(cancelled.Seq), id, "", "")
	step(400, "GET /events/{id}/stream?last_event_id=x", id, "", "")
	step(409, "POST /events/{id}/book", id, user, seat, "Idempotency-Key", "9") // not on sale
	step(409, "POST /admin/events/{id}/publish", id, organizer, "")
	box.add(box.event(2, who.User, seats("All", 3, 100)), nil)
	step(200, "GET /events/{id}", evently.EventID(2).String(), "", "")

	// Waitlists.
	limited := box.event(3, who.User, seats("All", 3, 100))
	limited.MaxPerUser = 4
	id = box.add(limited, nil).ID.String()
	waiter, _ := w.token(t, evently.RoleUser)
	other, _ := w.token(t, evently.RoleUser)
	const one, two, offer = `{"quantity":1}`, `{"quantity":2}`, `{"items":[{"tier_id":"t1","quantity":2}],"on_release":"hold"}`
	step(409, "POST /events/{id}/waitlist", id, waiter, one, "Idempotency-Key", "w0") // seats are free
	first := field(step(201, "POST /events/{id}/book", id, user, two, "Idempotency-Key", "w1"), "id")
	step(201, "POST /events/{id}/book", id, user, one, "Idempotency-Key", "w2")
	step(422, "POST /events/{id}/book", id, user, two, "Idempotency-Key", "w3")     // more than the user may have
	step(422, "POST /events/{id}/waitlist", id, user, two, "Idempotency-Key", "w4") // the same
	step(404, "GET /events/{id}/waitlist/me", id, waiter, "")
	step(404, "DELETE /events/{id}/waitlist/me", id, waiter, "")
	entry := field(step(201, "POST /events/{id}/waitlist", id, waiter, offer, "Idempotency-Key", "w5"), "id")
	step(201, "POST /events/{id}/waitlist", id, waiter, offer, "Idempotency-Key", "w5")
	step(422, "POST /events/{id}/waitlist", id, waiter, one, "Idempotency-Key", "w5")
	step(409, "POST /events/{id}/waitlist", id, waiter, one, "Idempotency-Key", "w6") // waits already
	step(400, "POST /events/{id}/waitlist", id, waiter, one)
	step(201, "POST /events/{id}/waitlist", id, other, two, "Idempotency-Key", "w7")
	step(200, "GET /events/{id}/availability", id, "", "")
	step(200, "GET /admin/events/{id}/waitlist?status=waiting&limit=1", id, organizer, "")
	step(200, "PUT /admin/events/{id}/waitlist/{entry_id}", id+" "+entry, organizer, `{"priority":-5}`)
	step(400, "PUT /admin/events/{id}/waitlist/{entry_id}", id+" "+entry, organizer, `{"priority":0.5}`)
	step(404, "PUT /admin/events/{id}/waitlist/{entry_id}", id+" nonsense", organizer, `{"priority":5}`)
	step(204, "DELETE /reservations/{id}", first, user, "") // the other is booked
	step(200, "GET /events/{id}/waitlist/me", id, other, "")
	step(200, "GET /waitlist?limit=1", "", waiter, "")
	step(200, "POST /bookings/{id}/cancel", w.served(t, id, other), other, "") // and the waiter is offered the seats
	step(200, "GET /events/{id}/waitlist/me", id, waiter, "")
	step(409, "PUT /admin/events/{id}/waitlist/{entry_id}", id+" "+entry, organizer, `{"priority":5}`)
	step(204, "DELETE /events/{id}/waitlist/me", id, waiter, "")
	step(200, "GET /admin/events/{id}/waitlist", id, organizer, "")
	step(200, "GET /admin/events/{id}/bookings.csv?status=held,cancelled", id, organizer, "")

	// Prices.
	const rule = `{"curve":[{"demand_bps":0,"factor_bps":12000}],"time":[],"step":{"every_seats":1,"add_minor":5},"floor_bps":null,"rounding":"up"}`
	step(200, "GET /admin/events/{id}/pricing", id, organizer, "")
	step(428, "PUT /admin/events/{id}/pricing", id, organizer, rule)
	step(200, "PUT /admin/events/{id}/pricing?dry_run=true", id, organizer, rule, "If-Match", `"1"`)
	step(412, "PUT /admin/events/{id}/pricing", id, organizer, rule, "If-Match", `"2"`)
	step(200, "PUT /admin/events/{id}/pricing", id, organizer, rule, "If-Match", `"1"`)
	step(200, "GET /admin/events/{id}/pricing", id, organizer, "")
	step(200, "POST /admin/pricing/run", "", organizer, `{"dry_run":true,"event_id":"`+id+`"}`)
	step(200, "POST /admin/pricing/run", "", administrator, "", "Idempotency-Key", "w8")
	step(200, "POST /admin/pricing/run", "", administrator, "", "Idempotency-Key", "w8")
	step(428, "DELETE /admin/events/{id}/pricing", id, organizer, "")
	step(204, "DELETE /admin/events/{id}/pricing", id, organizer, "", "If-Match", "*")
	step(200, "POST /admin/events/{id}/cancel", id, organizer, "")
	step(409, "PUT /admin/events/{id}/pricing", id, organizer, rule, "If-Match", "*")
	step(409, "POST /events/{id}/waitlist", id, waiter, one, "Idempotency-Key", "w9") // not on sale

	// Analytics.
	box.figures = someFigures()
	step(200, "GET /admin/analytics?from=2027-03-01T00:00:00Z", "", organizer, "")
	step(400, "GET /admin/analytics?to=never", "", organizer, "")
	step(200, "GET /admin/analytics/timeseries?granularity=week&timezone=Europe/Berlin&event_id="+id, "", organizer, "")
	step(200, "GET /admin/analytics/leaderboards?limit=3", "", administrator, "")
	step(200, "GET /admin/events/{id}/analytics?to=2028-01-01T00:00:00Z", id, organizer, "")

	// Audit.
	step(200, "GET /admin/audit?limit=20&from=2027-02-20T00:00:00Z", "", administrator, "")
	step(200, "GET /admin/audit?kind=held&event_id="+id, "", organizer, "")
	step(400, "GET /admin/audit?user_id=nobody", "", administrator, "")
	step(403, "GET /admin/audit", "", organizer, "")

	// Operations.
	step(403, "GET /admin/analytics/system", "", organizer, "")
	step(503, "GET /admin/analytics/system", "", administrator, "") // nobody to ask
	w.server.config.System, w.server.config.Membership = exampleSystem, func() Membership { return exampleMembership }
	step(200, "GET /admin/analytics/system", "", administrator, "")
	step(200, "GET /admin/analytics/system?event_id="+id, "", administrator, "", "Traceparent", exampleTrace)
	step(400, "GET /admin/analytics/system?event_id=x", "", administrator, "")
	step(200, "GET /info", "", "", "")
	w.server.config.Membership = nil
	for _, path := range []string{"/health", "/livez", "/readyz", "/info", "/openapi.json", "/docs"} {
		step(200, "GET "+path, "", "", "")
	}
	step(200, "GET /docs/{file}", "swagger-ui.css", "", "")
	w.server.draining.Store(true)
	step(503, "GET /readyz", "", "", "")

	operations(t, func(t *testing.T, o *operation) {
		if !visited[o.method+" "+o.path] {
			t.Error("the tour did not come here")
		}
	})
}
