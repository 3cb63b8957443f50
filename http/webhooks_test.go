package http

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

const hookRequest = `{"url":"https://hooks.example.com/in?token=1","events":["booking.confirmed","event.cancelled"],"description":" CRM "}`

func TestWebhooks_FromCreationToDeletion(t *testing.T) {
	w := newSite(t, nil)
	bearer, who := w.token(t, evently.RoleOrganizer)
	now := w.clock.Now().UTC().Truncate(time.Millisecond)
	created := w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", bearer)
	var got webhookSecretJSON
	created.decode(t, &got)
	want := webhookJSON{
		ID: got.ID, OwnerID: who.User.String(), URL: "https://hooks.example.com/in?token=1", Description: "CRM",
		Events: []string{"event.cancelled", "booking.confirmed"}, Active: true, CreatedAt: now, UpdatedAt: now,
	}
	if diff := cmp.Diff(want, got.webhookJSON); diff != "" || created.status != 201 || created.header.Get("Location") != "/admin/webhooks/"+got.ID {
		t.Errorf("status %d, %v (-want +got):\n%s", created.status, created.header, diff)
	}
	id, err := evently.ParseWebhookID(got.ID)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(got.Secret, "whsec_"))
	if err != nil || len(secret) != 32 || string(secret) != string(w.webhooks.secrets[id]) {
		t.Errorf("secret %s (%v), kept %x", got.Secret, err, w.webhooks.secrets[id])
	}

	path := "/admin/webhooks/" + got.ID
	call := func(status int, method, path, body string) string {
		t.Helper()
		a := w.do(t, method, path, body, "Authorization", bearer)
		if a.status != status {
			t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
		}
		if strings.Contains(string(a.body), got.Secret) || strings.Contains(string(a.body), got.Secret[6:]) {
			t.Errorf("%s %s tells the secret: %s", method, path, a.body)
		}
		return string(a.body)
	}
	active := func(body string) bool {
		t.Helper()
		var hook webhookJSON
		if err := json.Unmarshal([]byte(body), &hook); err != nil {
			t.Fatal(err)
		}
		if hook.Active != (hook.DisabledReason == nil) || hook.Active != (hook.DisabledAt == nil) {
			t.Errorf("%s", body)
		}
		return hook.Active
	}
	first := call(200, "GET", path, "")
	if list := call(200, "GET", "/admin/webhooks", ""); list != `{"data":[`+first+`],"next_cursor":null}` {
		t.Errorf("list %s, webhook %s", list, first)
	}
	revise := func(more string) string {
		return call(200, "PUT", path, `{"url":"https://other.example.com","events":["waitlist.left"]`+more+`}`)
	}
	if body := revise(""); !active(body) || !strings.Contains(body, `"url":"https://other.example.com","description":"","events":["waitlist.left"]`) {
		t.Errorf("revised %s", body)
	}
	if active(revise(`,"active":false`)) || active(revise("")) || active(revise(`,"active":null`)) || !active(revise(`,"active":true`)) {
		t.Error("active is not what was asked for last")
	}
	revise(`,"active":false`)
	if !active(call(200, "POST", path+"/enable", "")) {
		t.Error("enabled, and not active")
	}
	rotated := call(200, "POST", path+"/rotate-secret", "")
	if !strings.Contains(rotated, base64.StdEncoding.EncodeToString(w.webhooks.secrets[id])) || strings.Contains(rotated, `"past_secret_until":null`) {
		t.Errorf("rotated %s", rotated)
	}
	call(204, "DELETE", path, "")
	call(404, "GET", path, "")
	call(404, "DELETE", path, "")
}

func TestWebhooks_DeliveriesAreShownAndSentAgain(t *testing.T) {
	w := newSite(t, nil)
	bearer, _ := w.token(t, evently.RoleAdmin)
	var hook webhookJSON
	w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", bearer).decode(t, &hook)
	path := "/admin/webhooks/" + hook.ID
	var ids []string
	for range 3 {
		var ping deliveryJSON
		a := w.do(t, "POST", path+"/test", "", "Authorization", bearer)
		if a.decode(t, &ping); a.status != http.StatusAccepted || ping.Type != "ping" || ping.Status != "pending" || ping.EventID != nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
		ids = append(ids, ping.ID)
		w.clock.add(time.Second)
	}
	slices.Reverse(ids)
	w.webhooks.attempted(200, "")
	var got []string
	for cursor := ""; ; {
		var page listJSON[deliveryJSON]
		w.do(t, "GET", path+"/deliveries?limit=2"+cursor, "", "Authorization", bearer).decode(t, &page)
		for _, delivery := range page.Data {
			got = append(got, delivery.ID)
		}
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a := w.do(t, "POST", path+"/deliveries/"+ids[0]+"/redeliver", "", "Authorization", bearer)
	var again deliveryJSON
	if a.decode(t, &again); a.status != http.StatusAccepted || again.ID != ids[0] || again.Status != "pending" || len(again.Attempts) != 1 ||
		*again.Attempts[0].Status != 200 || again.Attempts[0].Error != nil || *again.Attempts[0].Excerpt != "ok" || again.Attempts[0].LatencyMS != 7 {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.webhooks.attempted(0, "timeout")
	var page listJSON[deliveryJSON]
	w.do(t, "GET", path+"/deliveries?limit=1", "", "Authorization", bearer).decode(t, &page)
	if attempt := page.Data[0].Attempts[1]; attempt.Status != nil || attempt.Excerpt != nil || *attempt.Error != "timeout" {
		t.Errorf("%+v", attempt)
	}
	w.do(t, "POST", path+"/deliveries/msg_00000000000000000000000000/redeliver", "", "Authorization", bearer).problem(t, evently.CodeNotFound)
	w.do(t, "POST", path+"/deliveries/1/redeliver", "", "Authorization", bearer).problem(t, evently.CodeNotFound)
	w.do(t, "GET", path+"/deliveries?cursor=x", "", "Authorization", bearer).field(t, "cursor")
}

// A repeated request has one effect, also when its answer was not stored.
func TestWebhooks_RepeatedRequests(t *testing.T) {
	w := newSite(t, nil)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	create := func() (hook webhookSecretJSON) {
		clear(w.answers.stored)
		w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", bearer, "Idempotency-Key", "k").decode(t, &hook)
		return hook
	}
	first, second := create(), create()
	id, err := evently.ParseWebhookID(first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != second.ID || len(w.webhooks.kept) != 1 || !strings.Contains(second.Secret, base64.StdEncoding.EncodeToString(w.webhooks.secrets[id])) {
		t.Errorf("%+v after %+v, %d webhooks", second, first, len(w.webhooks.kept))
	}
	for range 2 {
		clear(w.answers.stored)
		w.do(t, "POST", "/admin/webhooks/"+first.ID+"/test", "", "Authorization", bearer, "Idempotency-Key", "p")
	}
	if len(w.webhooks.deliveries) != 1 {
		t.Errorf("%d pings", len(w.webhooks.deliveries))
	}
}

func TestWebhooks_AreTheirOwnersAlone(t *testing.T) {
	w := newSite(t, nil)
	owner, _ := w.token(t, evently.RoleOrganizer)
	other, _ := w.token(t, evently.RoleOrganizer)
	administrator, _ := w.token(t, evently.RoleAdmin)
	user, _ := w.token(t, evently.RoleUser)
	var hook webhookJSON
	w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", owner).decode(t, &hook)
	path := "/admin/webhooks/" + hook.ID
	var ping deliveryJSON
	w.do(t, "POST", path+"/test", "", "Authorization", owner).decode(t, &ping)
	for _, try := range []struct{ method, path, body string }{
		{"GET", path, ""},
		{"PUT", path, hookRequest},
		{"POST", path + "/enable", ""},
		{"POST", path + "/rotate-secret", ""},
		{"POST", path + "/test", ""},
		{"GET", path + "/deliveries", ""},
		{"POST", path + "/deliveries/" + ping.ID + "/redeliver", ""},
		{"DELETE", path, ""},
	} {
		w.do(t, try.method, try.path, try.body, "Authorization", other).problem(t, evently.CodeNotFound)
		w.do(t, try.method, try.path, try.body, "Authorization", user).problem(t, evently.CodeForbidden)
		w.do(t, try.method, try.path, try.body).problem(t, evently.CodeUnauthenticated)
		if a := w.do(t, try.method, try.path, try.body, "Authorization", administrator); a.status >= 300 {
			t.Errorf("%s %s by an administrator: %d %s", try.method, try.path, a.status, a.body)
		}
	}
	var list listJSON[webhookJSON]
	w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", owner)
	w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", administrator)
	for bearer, want := range map[string]int{owner: 1, other: 0, administrator: 2} {
		if w.do(t, "GET", "/admin/webhooks", "", "Authorization", bearer).decode(t, &list); len(list.Data) != want || list.Data == nil {
			t.Errorf("lists %d, want %d", len(list.Data), want)
		}
	}
}

func TestWebhooks_WrongInputIsNamed(t *testing.T) {
	w := newSite(t, nil)
	bearer, _ := w.token(t, evently.RoleAdmin)
	var hook webhookJSON
	w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", bearer).decode(t, &hook)
	const url, events = `"url":"https://hooks.example.com"`, `"events":["booking.confirmed"]`
	for body, field := range map[string]string{
		``:                                  "body",
		`[]`:                                "body",
		`{` + url + `}`:                     "events",
		`{` + events + `}`:                  "url",
		`{` + events + `,"url":""}`:         "url",
		`{` + events + `,"url":null}`:       "url",
		`{` + events + `,"url":7}`:          "url",
		`{` + events + `,"url":"a\u0000b"}`: "url",
		`{` + events + `,"url":"https://private.example.com"}`:                             "url",
		`{` + events + `,"url":"https://e.example/` + strings.Repeat("x", 2000) + `"}`:     "url",
		`{` + url + `,"events":[]}`:                                                        "events",
		`{` + url + `,"events":null}`:                                                      "events",
		`{` + url + `,"events":"booking.confirmed"}`:                                       "events",
		`{` + url + `,"events":["booking.confirmed","booking.confirmed"]}`:                 "events[1]",
		`{` + url + `,"events":["booking.lost"]}`:                                          "events[0]",
		`{` + url + `,"events":["ping"]}`:                                                  "events[0]",
		`{` + url + `,"events":["*"]}`:                                                     "events[0]",
		`{` + url + `,"events":["Booking.Confirmed"]}`:                                     "events[0]",
		`{` + url + `,"events":[1]}`:                                                       "events[0]",
		`{` + url + `,` + events + `,"description":"` + strings.Repeat("x", 501) + `"}`:    "description",
		`{` + url + `,` + events + `,"description":"\u0000"}`:                              "description",
		`{` + url + `,` + events + `,"active":"yes"}`:                                      "active",
		`{` + url + `,` + events + `,"secret":"whsec_AAAA"}`:                               "secret",
		`{` + url + `,` + events + `,"owner_id":"usr_1"}`:                                  "owner_id",
		`{` + url + `,` + events + `,` + url + `}`:                                         "url",
		`{` + url + `,"events":[` + strings.Repeat(`"booking.x",`, 5000) + `"booking.x"]}`: "events[0]",
	} {
		for _, route := range []string{"POST /admin/webhooks", "PUT /admin/webhooks/" + hook.ID} {
			method, path, _ := strings.Cut(route, " ")
			var fields []string
			headers := []string{"Authorization", bearer, "Content-Type", "application/json"}
			for _, fault := range w.do(t, method, path, body, headers...).problem(t, evently.CodeInvalidRequest).Errors {
				fields = append(fields, fault.Field)
			}
			if !slices.Contains(fields, field) {
				t.Errorf("%s %.80s: names %q, want %s", route, body, fields, field)
			}
		}
	}
	for _, id := range []string{"1", "whk_", "whk_0000000000000", "whk_zzzzzzzzzzzzz", "evt_0c9h4w2k7m3qe", "WHK_0C9H4W2K7M3QE", "..%2f..", "%00"} {
		w.do(t, "GET", "/admin/webhooks/"+id, "", "Authorization", bearer).problem(t, evently.CodeNotFound)
	}
	if len(w.webhooks.kept) != 1 {
		t.Errorf("%d webhooks", len(w.webhooks.kept))
	}
}

func TestWebhooks_AreBounded(t *testing.T) {
	w := newSite(t, nil)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	for i := range evently.WebhooksMax {
		w.clock.add(time.Second)
		body := fmt.Sprintf(`{"url":"https://hooks.example.com/%d","events":["event.published"],"active":false}`, i)
		if a := w.do(t, "POST", "/admin/webhooks", body, "Authorization", bearer); a.status != 201 {
			t.Fatalf("%d: %d %s", i, a.status, a.body)
		}
	}
	w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", bearer).problem(t, evently.CodeWebhookLimitReached)
	another, _ := w.token(t, evently.RoleOrganizer)
	if a := w.do(t, "POST", "/admin/webhooks", hookRequest, "Authorization", another); a.status != 201 {
		t.Errorf("another owner: %d %s", a.status, a.body)
	}
	var list listJSON[webhookJSON]
	count := 0
	for cursor := ""; ; cursor = "&cursor=" + *list.NextCursor {
		w.do(t, "GET", "/admin/webhooks?limit=7"+cursor, "", "Authorization", bearer).decode(t, &list)
		for _, hook := range list.Data {
			if !strings.HasSuffix(hook.URL, fmt.Sprintf("/%d", count)) {
				t.Errorf("number %d is %s", count, hook.URL)
			}
			count++
		}
		if list.NextCursor == nil {
			break
		}
	}
	if count != evently.WebhooksMax {
		t.Errorf("lists %d", count)
	}
}
