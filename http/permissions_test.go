package http

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

var roles = []evently.Role{evently.RoleUser, evently.RoleOrganizer, evently.RoleAdmin}

// refusesSome reports whether there is a role without a permission.
func refusesSome(needs permission) bool {
	for _, role := range roles {
		if !may(role, needs) {
			return true
		}
	}
	return false
}

func TestPermissions_EachRoleMayDoWhatTheOneBeforeMay(t *testing.T) {
	for needs, list := range permissions {
		if !strings.Contains(string(needs), ".") || len(list) == 0 || !may(evently.RoleAdmin, needs) {
			t.Errorf("permission %q is of %v", needs, list)
		}
		for _, role := range roles[1:] {
			if may(role-1, needs) && !may(role, needs) {
				t.Errorf("%s: %s may, and %s may not", needs, role-1, role)
			}
		}
	}
	for _, route := range newSite(t, nil).server.routes() {
		if _, known := permissions[route.access]; !known && route.access != public {
			t.Errorf("%s %s: permission %q is not in the table", route.method, route.path, route.access)
		}
	}
}

// caller is who makes the request of a cell.
type caller struct {
	name  string
	role  evently.Role
	owner bool // of the object in the path
}

var callers = []caller{
	{name: "anonymous"},
	{"user", evently.RoleUser, true},
	{"another user", evently.RoleUser, false},
	{"organizer", evently.RoleOrganizer, true},
	{"another organizer", evently.RoleOrganizer, false},
	{"admin", evently.RoleAdmin, true},
	{"another admin", evently.RoleAdmin, false},
}

// object is what the id in a path or in a query is of: how somebody comes to have one, and by which permission others may use it too.
type object struct {
	made   func(t *testing.T, w *site, box *fakeBox, bearer string, owner evently.Principal) (id string)
	others permission // public: nobody else may
	query  string     // the parameter that has the id; empty: it is in the path
}

// objects are those of the paths that begin with their keys, or are them.
var objects = map[string]object{
	"/admin/events/":              {made: madeEvent, others: eventsAny},
	"/admin/audit":                {made: madeEvent, others: auditRead, query: "event_id"},
	"/admin/analytics/timeseries": {made: madeEvent, others: eventsAny, query: "event_id"},
	"/reservations/":              {made: madeHold},
	"/bookings/":                  {made: madeHold},
	"/sessions/":                  {made: madeSession},
	"/admin/users/":               {made: madeUser, others: usersManage},
	"/admin/webhooks/": {others: eventsAny, made: func(t *testing.T, w *site, _ *fakeBox, bearer string, owner evently.Principal) string {
		if !may(owner.Role, webhooksManage) {
			bearer, _ = w.token(t, evently.RoleOrganizer) // so it is another's
		}
		var made struct{ ID string }
		body := `{"url":"https://hooks.example.com/evently","events":["booking.confirmed"]}`
		w.do(t, "POST", "/admin/webhooks", body, "Authorization", bearer).decode(t, &made)
		return made.ID
	}},
}

const madeID evently.EventID = 77

func madeEvent(t *testing.T, _ *site, box *fakeBox, _ string, owner evently.Principal) string {
	t.Helper()
	box.add(box.event(madeID, owner.User, seats("All", 10, 100)), nil)
	return madeID.String()
}

func madeHold(t *testing.T, w *site, box *fakeBox, bearer string, owner evently.Principal) string {
	t.Helper()
	madeEvent(t, w, box, bearer, owner)
	_, hold := w.book(t, madeID, bearer, "k", `{"quantity":1}`)
	return hold.ID
}

func madeSession(_ *testing.T, _ *site, _ *fakeBox, _ string, owner evently.Principal) string {
	return sessionText(owner.Session)
}

func madeUser(_ *testing.T, _ *site, _ *fakeBox, _ string, owner evently.Principal) string {
	return owner.User.String()
}

// Every cell of role x route x owner, as the tables of routes and of permissions have it.
func TestPermissions_EveryRoleRouteAndOwner(t *testing.T) {
	doc := loadOpenAPI(t, openapiDocument)
	for _, r := range newSite(t, nil).server.routes() {
		path := pathParameter.ReplaceAllString(r.path, "{$1}")
		item := doc.Paths.Value(path)
		if item == nil || item.GetOperation(r.method) == nil {
			t.Errorf("%s %s is not in the document", r.method, path)
			continue
		}
		o := &operation{item.GetOperation(r.method), doc, r.method, path}
		for _, who := range callers {
			t.Run(r.method+" "+path+" by "+who.name, func(t *testing.T) { checkCell(t, r, o, who) })
		}
	}
}

func checkCell(t *testing.T, r route, o *operation, who caller) {
	w, box := newBoxSite(t)
	w.server.config.System, w.server.config.Membership = exampleSystem, func() Membership { return exampleMembership }
	bearer, principal := w.token(t, who.role)
	_, path, headers := pathAndHeaders(t, o)
	of, owned := objectOf(r.path)
	if owned {
		ownerBearer, owner := bearer, principal
		if !who.owner {
			ownerBearer, owner = w.token(t, who.role)
		}
		id := of.made(t, w, box, ownerBearer, owner)
		if path = strings.Replace(path, "{id}", id, 1); of.query != "" {
			path += "?" + of.query + "=" + id
		}
	} else if strings.Contains(path, "{id}") {
		// What is public has no owner who matters.
		if !strings.HasPrefix(path, "/events/") {
			t.Fatal("objects does not tell what the id is of")
		}
		path = strings.Replace(path, "{id}", madeEvent(t, w, box, "", evently.Principal{User: 1}), 1)
	}
	if who.name != "anonymous" {
		headers = append(headers, "Authorization", bearer)
	}
	_, body, _ := o.request(t, "")
	got := w.statusOf(t, r.method, path, body, headers)
	others := owned && !who.owner && (of.others == public || !may(who.role, of.others))
	if got >= http.StatusInternalServerError {
		t.Fatalf("status %d, and nothing is broken", got)
	}
	refused := got == http.StatusUnauthorized || got == http.StatusForbidden
	switch {
	case r.access == public: // a wrong password is one of the answers
		if got == http.StatusForbidden || got == http.StatusUnauthorized && r.limit != limitAuth {
			t.Errorf("status %d, and it is public", got)
		}
	case who.name == "anonymous":
		if got != http.StatusUnauthorized {
			t.Errorf("status %d, want 401", got)
		}
	case !may(who.role, r.access):
		if got != http.StatusForbidden {
			t.Errorf("status %d, want 403: no %s", got, r.access)
		}
	case others:
		if got != http.StatusNotFound {
			t.Errorf("status %d, want 404: it is another's", got)
		}
	case refused || got == http.StatusNotFound && owned && strings.Count(r.path, ":") <= 1:
		t.Errorf("status %d, and it is allowed", got)
	}
}

// objectOf is what the id in a route's path is of.
func objectOf(path string) (of object, found bool) {
	for prefix, of := range objects {
		if strings.HasPrefix(path, prefix+":id") || path == prefix && of.query != "" {
			return of, true
		}
	}
	return object{}, false
}

// pathAndHeaders is an operation's request out of the document's examples, but for the id and the token.
func pathAndHeaders(t *testing.T, o *operation) (method, path string, headers []string) {
	t.Helper()
	path = o.path
	for _, parameter := range o.Parameters {
		example, _ := parameter.Value.Example.(string)
		switch {
		case parameter.Value.In == "path" && parameter.Value.Name != "id":
			path = strings.ReplaceAll(path, "{"+parameter.Value.Name+"}", example)
		case parameter.Value.In == "header" && parameter.Value.Required:
			headers = append(headers, parameter.Value.Name, example)
		}
	}
	return o.method, path, headers
}

// statusOf makes a request and does not wait for the end of its answer, which a stream has none of.
func (w *site) statusOf(t *testing.T, method, path, body string, headers []string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}
