package http

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/evently/evently"
	"github.com/evently/evently/http/apitest"
)

func TestUsers_AreListedAndRead(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	bearer, who := w.token(t, evently.RoleAdmin)
	ada := w.register(t, adaRegisters)
	type list struct {
		Data       []userJSON `json:"data"`
		NextCursor *string    `json:"next_cursor"`
	}
	read := func(query string) (got list) {
		t.Helper()
		w.do(t, "GET", "/admin/users"+query, "", "Authorization", bearer).decode(t, &got)
		return got
	}
	if got := read(""); len(got.Data) != 2 || got.NextCursor != nil {
		t.Errorf("%+v", got)
	}
	for _, query := range []string{"?q=ADA@", "?role=user", "?q=ada&role=user"} {
		if got := read(query); len(got.Data) != 1 || got.Data[0] != ada {
			t.Errorf("%s: %+v", query, got)
		}
	}
	first := read("?limit=1")
	if len(first.Data) != 1 || first.NextCursor == nil {
		t.Fatalf("%+v", first)
	}
	if rest := read("?limit=1&cursor=" + *first.NextCursor); len(rest.Data) != 1 || rest.Data[0] == first.Data[0] || rest.NextCursor != nil {
		t.Errorf("%+v", rest)
	}
	var one userJSON
	if w.do(t, "GET", "/admin/users/"+ada.ID, "", "Authorization", bearer).decode(t, &one); one != ada {
		t.Errorf("%+v", one)
	}
	for _, id := range []string{"x", (who.User + 1).String()} {
		w.do(t, "GET", "/admin/users/"+id, "", "Authorization", bearer).problem(t, evently.CodeNotFound)
	}
	w.client = http.DefaultClient
	for query, field := range map[string]string{"role=boss": "role", "q=%00": "q", "q=%ff": "q", "cursor=x": "cursor", "limit=0": "limit"} {
		w.do(t, "GET", "/admin/users?"+query, "", "Authorization", bearer).field(t, field)
	}
}

// Rights come and go with the role at once: the tokens that say the old one are refused.
func TestChangeRole_TakesEffectAtOnce(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	bearer, admin := w.token(t, evently.RoleAdmin)
	ada := w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	w.client = apitest.NewClient(t, w.url)
	change := func(id, role string) *answer {
		return w.do(t, "PUT", "/admin/users/"+id+"/role", fmt.Sprintf(`{"role":%q}`, role), "Authorization", bearer)
	}
	var changed userJSON
	change(ada.ID, "admin").decode(t, &changed)
	if ada.Role = "admin"; changed != ada {
		t.Errorf("got %+v, want %+v", changed, ada)
	}
	w.do(t, "GET", "/me", "", "Authorization", "Bearer "+tokens.AccessToken).problem(t, evently.CodeUnauthenticated)
	tokens = w.login(t, adaSignsIn)
	use := func() *answer {
		return w.do(t, "GET", "/admin/users", "", "Authorization", "Bearer "+tokens.AccessToken)
	}
	if a := use(); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Ada is told who did it, and not from where.
	var log struct{ Data []securityEntryJSON }
	w.do(t, "GET", "/me/security", "", "Authorization", "Bearer "+tokens.AccessToken).decode(t, &log)
	told := log.Data[1]
	if told.Kind != evently.SecurityRoleChanged || *told.ActorID != admin.User.String() || told.SessionID != nil || told.IP+told.UserAgent != "" ||
		told.Detail["from"] != "user" || told.Detail["to"] != "admin" {
		t.Errorf("%+v", told)
	}
	change(ada.ID, "admin") // as it is: the session goes on
	if a := use(); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := change(ada.ID, "organizer"); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	use().problem(t, evently.CodeUnauthenticated)
	change(admin.User.String(), "user").problem(t, evently.CodeLastAdmin)
	change((admin.User+1).String(), "user").problem(t, evently.CodeNotFound)
	w.client = http.DefaultClient
	change(ada.ID, "boss").field(t, "role")
	for role, status := range map[evently.Role]int{evently.RoleUser: 403, evently.RoleOrganizer: 403} {
		other, _ := w.token(t, role)
		a := w.do(t, "PUT", "/admin/users/"+ada.ID+"/role", `{"role":"admin"}`, "Authorization", other)
		if a.status != status {
			t.Errorf("%s: %d %s", role, a.status, a.body)
		}
	}
}
