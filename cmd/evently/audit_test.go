package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/cmd/evently/proctest"
)

// auditRecord is a record of GET /admin/audit.
type auditRecord struct {
	ID            string
	At            time.Time
	Kind          string
	ActorID       *string `json:"actor_id"`
	UserID        *string `json:"user_id"`
	EventID       *string `json:"event_id"`
	ReservationID *string `json:"reservation_id"`
	WaiterID      *string `json:"waiter_id"`
	RequestID     string  `json:"request_id"`
	Epoch, Seq    *uint64
	Detail        struct {
		Changes []struct {
			Field    string
			Old, New any
		}
		Items []struct{ Quantity int }
		Was   string
	}
}

// audited reads all pages of a query.
func audited(t *testing.T, c *proctest.Client, query string) (records []auditRecord) {
	t.Helper()
	for cursor := ""; ; {
		var page struct {
			Data       []auditRecord
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(c.Must(t, 200, "GET", "/admin/audit?limit=7&"+query+cursor, "", "").Body, &page); err != nil {
			t.Fatal(err)
		}
		records = append(records, page.Data...)
		if page.NextCursor == nil {
			return records
		}
		cursor = "&cursor=" + *page.NextCursor
	}
}

// person is a user who is signed in.
type person struct {
	*proctest.Client
	id, email, password string
}

func register(t *testing.T, s *proctest.Server, name string) *person {
	t.Helper()
	p := &person{Client: s.Client(t, ""), email: name + "@example.com", password: "a-long-enough-password"}
	p.Must(t, 201, "POST", "/register", "", fmt.Sprintf(`{"email":%q,"password":%q,"name":%q}`, p.email, p.password, name), "X-Request-Id", "register-"+name)
	p.signIn(t, "sign-in-"+name)
	var me struct{ ID string }
	if err := json.Unmarshal(p.Must(t, 200, "GET", "/me", "", "").Body, &me); err != nil || me.ID == "" {
		t.Fatalf("%+v (%v)", me, err)
	}
	p.id = me.ID
	return p
}

func (p *person) signIn(t *testing.T, request string) {
	t.Helper()
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	body := p.Must(t, 200, "POST", "/login", "", fmt.Sprintf(`{"email":%q,"password":%q}`, p.email, p.password), "X-Request-Id", request).Body
	if err := json.Unmarshal(body, &tokens); err != nil {
		t.Fatal(err)
	}
	p.Token = tokens.AccessToken
}

// change is something that was done, and what the audit log has to say of it.
type change struct {
	kind, request string
	actor, user   *person // nil: the system, or nobody
	event         string
	reservation   string
	field         string // that was changed
}

// everything does all that can be done, once at least, and returns what there has to be in the audit log.
func everything(t *testing.T, s *proctest.Server) (admin *person, changes []change) {
	t.Helper()
	admin = &person{Client: s.Client(t, ""), email: s.Email, password: s.Password}
	admin.signIn(t, "sign-in-admin")
	var me struct{ ID string }
	if err := json.Unmarshal(admin.Must(t, 200, "GET", "/me", "", "").Body, &me); err != nil {
		t.Fatal(err)
	}
	admin.id = me.ID
	ann, ben, eve := register(t, s, "ann"), register(t, s, "ben"), register(t, s, "eve")
	did := func(c change) { changes = append(changes, c) }
	for _, p := range []*person{ann, ben, eve} {
		name, _, _ := strings.Cut(p.email, "@")
		did(change{kind: "registered", request: "register-" + name, user: p})
		did(change{kind: "signed_in", request: "sign-in-" + name, user: p, actor: p})
	}

	// An event, from its draft on.
	starts := time.Now().Add(48 * time.Hour).UTC()
	details := func(capacity int, status string) string {
		return fmt.Sprintf(`{"name":"Reading","starts_at":%q,"ends_at":%q,"timezone":"Europe/Vienna","currency":"EUR","capacity":%d,
			"base_price_minor":1000,"hold_ttl_seconds":600%s}`, starts.Format(time.RFC3339), starts.Add(time.Hour).Format(time.RFC3339), capacity, status)
	}
	path := "/events/" + admin.Must(t, 201, "POST", "/admin/events", "draft", details(3, `,"status":"draft"`), "X-Request-Id", "create").Seats(t).ID
	did(change{kind: "event_created", request: "create", actor: admin, event: path, field: "name"})
	admin.Must(t, 200, "POST", "/admin"+path+"/publish", "", "", "X-Request-Id", "publish")
	did(change{kind: "event_published", request: "publish", actor: admin, event: path, field: "status"})
	admin.Must(t, 200, "PUT", "/admin"+path, "", details(2, ""), "X-Request-Id", "revise", "If-Match", `"2"`)
	did(change{kind: "event_revised", request: "revise", actor: admin, event: path, field: "tiers.t1.capacity"})
	rule := `{"step":{"every_seats":1,"add_minor":50}}`
	admin.Must(t, 200, "PUT", "/admin"+path+"/pricing", "", rule, "X-Request-Id", "price", "If-Match", `"3"`)
	did(change{kind: "event_pricing_set", request: "price", actor: admin, event: path, field: "pricing"})

	// Its seats.
	booked := ann.Must(t, 201, "POST", path+"/book", "one", `{"quantity":1}`, "X-Request-Id", "hold").Seats(t).ID
	did(change{kind: "held", request: "hold", actor: ann, user: ann, event: path, reservation: booked})
	ann.Must(t, 200, "POST", "/reservations/"+booked+"/confirm", "", "", "X-Request-Id", "confirm")
	did(change{kind: "confirmed", request: "confirm", actor: ann, user: ann, event: path, reservation: booked})
	admin.Must(t, 200, "POST", "/admin/pricing/run", "run", "{}", "X-Request-Id", "reprice")
	did(change{kind: "event_repriced", request: "reprice", actor: admin, event: path, field: "tiers.t1.price_minor"})
	given := ann.Must(t, 201, "POST", path+"/book", "two", `{"quantity":1}`, "X-Request-Id", "hold-2").Seats(t).ID
	did(change{kind: "held", request: "hold-2", actor: ann, user: ann, event: path, reservation: given})

	// Its waitlist.
	entry := ben.Must(t, 201, "POST", path+"/waitlist", "wait", `{"quantity":1,"on_release":"hold"}`, "X-Request-Id", "wait").Seats(t).ID
	did(change{kind: "waitlisted", request: "wait", actor: ben, user: ben, event: path, reservation: entry})
	admin.Must(t, 200, "PUT", "/admin"+path+"/waitlist/"+entry, "", `{"priority":7}`, "X-Request-Id", "priority")
	did(change{kind: "waiter_prioritized", request: "priority", actor: admin, user: ben, event: path, reservation: entry, field: "priority"})
	leaving := eve.Must(t, 201, "POST", path+"/waitlist", "wait", `{"quantity":1}`, "X-Request-Id", "wait-2").Seats(t).ID
	did(change{kind: "waitlisted", request: "wait-2", actor: eve, user: eve, event: path, reservation: leaving})
	eve.Must(t, 204, "DELETE", path+"/waitlist/me", "", "", "X-Request-Id", "leave")
	did(change{kind: "waiter_left", request: "leave", actor: eve, user: eve, event: path, reservation: leaving})
	ann.Must(t, 204, "DELETE", "/reservations/"+given, "", "", "X-Request-Id", "give-back")
	offer := "rsv_" + strings.TrimPrefix(entry, "wtl_")
	did(change{kind: "cancelled", request: "give-back", actor: ann, user: ann, event: path, reservation: given})
	did(change{kind: "held", request: "give-back", user: ben, event: path, reservation: offer}) // by the system, for ben
	again := eve.Must(t, 201, "POST", path+"/waitlist", "again", `{"quantity":1}`, "X-Request-Id", "wait-3").Seats(t).ID
	did(change{kind: "waitlisted", request: "wait-3", actor: eve, user: eve, event: path, reservation: again})

	// Another event, of short holds.
	short := "/events/" + admin.Must(t, 201, "POST", "/admin/events", "short", proctest.EventBody("Short", 5, time.Second)).Seats(t).ID
	lapsed := ann.Must(t, 201, "POST", short+"/book", "three", `{"quantity":2}`, "X-Request-Id", "hold-3").Seats(t).ID
	did(change{kind: "held", request: "hold-3", actor: ann, user: ann, event: short, reservation: lapsed})
	did(change{kind: "expired", user: ann, event: short, reservation: lapsed})

	// The ends.
	admin.Must(t, 200, "POST", "/admin"+path+"/cancel", "", "", "X-Request-Id", "cancel")
	did(change{kind: "event_cancelled", request: "cancel", actor: admin, event: path, field: "status"})
	did(change{kind: "cancelled", request: "cancel", actor: admin, user: ann, event: path, reservation: booked})
	did(change{kind: "cancelled", request: "cancel", actor: admin, user: ben, event: path, reservation: offer})
	did(change{kind: "waiter_closed", request: "cancel", actor: admin, user: eve, event: path, reservation: again})
	draft := "/events/" + admin.Must(t, 201, "POST", "/admin/events", "gone", details(3, `,"status":"draft"`)).Seats(t).ID
	admin.Must(t, 204, "DELETE", "/admin"+draft, "", "", "X-Request-Id", "delete")
	did(change{kind: "event_deleted", request: "delete", actor: admin, event: draft, field: "name"})

	// Accounts.
	eve.Must(t, 401, "POST", "/login", "", `{"email":"eve@example.com","password":"wrong-password"}`, "X-Request-Id", "wrong")
	did(change{kind: "sign_in_failed", request: "wrong", user: eve})
	ben.signIn(t, "sign-in-ben-2")
	ben.Must(t, 204, "DELETE", "/sessions", "", "", "X-Request-Id", "others")
	did(change{kind: "signed_out_others", request: "others", actor: ben, user: ben})
	first := *ben.Client
	ben.signIn(t, "sign-in-ben-3")
	var sessions struct {
		Data []struct {
			ID      string
			Current bool
		}
	}
	if err := json.Unmarshal(ben.Must(t, 200, "GET", "/sessions", "", "").Body, &sessions); err != nil || len(sessions.Data) != 2 {
		t.Fatalf("%+v (%v)", sessions, err)
	}
	other := sessions.Data[0].ID
	if sessions.Data[0].Current {
		other = sessions.Data[1].ID
	}
	ben.Must(t, 204, "DELETE", "/sessions/"+other, "", "", "X-Request-Id", "revoke")
	did(change{kind: "session_revoked", request: "revoke", actor: ben, user: ben})
	first.Must(t, 401, "GET", "/me", "", "")
	ben.Must(t, 204, "POST", "/me/password", "", `{"password":"a-long-enough-password","new_password":"another-long-password"}`, "X-Request-Id", "password")
	did(change{kind: "password_changed", request: "password", actor: ben, user: ben})
	ben.Must(t, 204, "POST", "/logout", "", "", "X-Request-Id", "sign-out")
	did(change{kind: "signed_out", request: "sign-out", actor: ben, user: ben})
	admin.Must(t, 200, "PUT", "/admin/users/"+eve.id+"/role", "", `{"role":"organizer"}`, "X-Request-Id", "role")
	did(change{kind: "role_changed", request: "role", actor: admin, user: eve, field: "role"})
	return admin, changes
}

// missing returns what there is to say against a list as the record of changes.
func missing(records []auditRecord, changes []change) (faults []string) {
	id := func(p *person) string {
		if p == nil {
			return ""
		}
		return p.id
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	for _, want := range changes {
		var found *auditRecord
		for i := range records {
			r := &records[i]
			subject := want.reservation == "" || text(r.ReservationID) == want.reservation || text(r.WaiterID) == want.reservation
			if r.Kind == want.kind && r.RequestID == want.request && subject {
				found = r
			}
		}
		journal := want.event != ""
		switch {
		case found == nil:
			faults = append(faults, fmt.Sprintf("%+v is not there", want))
			continue
		case text(found.ActorID) != id(want.actor) || text(found.UserID) != id(want.user) || "/events/"+text(found.EventID) != want.event && journal,
			time.Since(found.At) > time.Hour || time.Until(found.At) > time.Minute,
			(found.Epoch == nil || found.Seq == nil || *found.Seq == 0) != !journal,
			want.reservation != "" && (len(found.Detail.Items) != 1 || found.Detail.Items[0].Quantity == 0):
			faults = append(faults, fmt.Sprintf("%+v is told as %+v", want, *found))
		}
		told := want.field == ""
		for _, c := range found.Detail.Changes {
			told = told || c.Field == want.field && fmt.Sprint(c.Old) != fmt.Sprint(c.New)
		}
		if !told {
			faults = append(faults, fmt.Sprintf("%s: the change of %s is not in %+v", want.kind, want.field, found.Detail.Changes))
		}
	}
	return faults
}

// Every kind of change over HTTP is in the audit log, with who did it, when, by which request, and where in the journal.
func TestAudit_HasEveryChange(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--rate-limit-book=off", "--rate-limit-auth=off")
	admin, changes := everything(t, &n.Server)
	proctest.Eventually(t, proctest.UpMax, func() error { // the sweeper expires a hold
		if faults := missing(audited(t, admin.Client, ""), changes); len(faults) > 0 {
			return fmt.Errorf("%d faults:\n%s", len(faults), strings.Join(faults, "\n"))
		}
		return nil
	})
	all := audited(t, admin.Client, "")
	for i, record := range all[1:] {
		if record.At.After(all[i].At) || record.ID == all[i].ID {
			t.Errorf("%s of %s comes after %s of %s", record.ID, record.At, all[i].ID, all[i].At)
		}
	}

	// The filters, each against the whole.
	kinds := map[string]bool{}
	for _, want := range changes {
		kinds[want.kind] = true
		for _, query := range []string{
			"kind=" + want.kind,
			"event_id=" + strings.TrimPrefix(want.event, "/events/"),
			"reservation_id=" + want.reservation,
			"user_id=" + func() string {
				if want.user != nil {
					return want.user.id
				}
				return admin.id
			}(),
			"from=" + url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339)) + "&kind=" + want.kind,
		} {
			if name, value, _ := strings.Cut(query, "="); value == "" {
				continue
			} else if faults := missing(audited(t, admin.Client, query), []change{want}); len(faults) > 0 {
				t.Errorf("by %s: %s", name, faults[0])
			}
		}
	}
	if len(kinds) != 23 {
		t.Errorf("%d kinds of changes were made: %v", len(kinds), kinds)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	proctest.Verified(t, dir)
}

// The owner of the tables migrates, and grants a role what nodes need. A node of that role does everything, and with its
// connection the journal and the security log cannot be changed.
func TestAudit_TheNodesRoleCannotChangeIt(t *testing.T) {
	t.Parallel()
	postgres := proctest.StartPostgres(t)
	owner := postgres.DSN()
	conn, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "create role nodes login password 'nodes'"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"migrate", "up"}, {"database", "grants", "nodes"}} {
		tool := proctest.Launch(t, proctest.DataDir(t), append(args, "--database-url="+owner)...)
		if exit := tool.Exit(t, proctest.UpMax); exit != exitOK {
			t.Fatalf("%v: exit %d: %s", args, exit, tool.Output())
		}
	}
	if wrong := proctest.Launch(t, proctest.DataDir(t), "database", "grants", "--database-url="+owner); wrong.Exit(t, proctest.UpMax) != exitUsage {
		t.Errorf("grants to nobody: %s", wrong.Output())
	}
	config := conn.Config().Copy()
	config.User, config.Password = "nodes", "nodes"
	node := fmt.Sprintf("user=nodes password=nodes host=%s port=%d dbname=%s", config.Host, config.Port, config.Database)
	cluster := proctest.Start(t, proctest.Config{
		Nodes: 1, Postgres: postgres, Database: func(int) string { return node }, Args: []string{"--migrate=never"},
	})
	admin, changes := everything(t, &cluster.Members[0].Server)
	proctest.Eventually(t, proctest.UpMax, func() error {
		if faults := missing(audited(t, admin.Client, ""), changes); len(faults) > 0 {
			return fmt.Errorf("%d faults:\n%s", len(faults), strings.Join(faults, "\n"))
		}
		return nil
	})
	for _, complaint := range []string{"permission denied", "42501"} {
		if strings.Contains(cluster.Members[0].Output(), complaint) {
			t.Errorf("the node lacks a right: %s", complaint)
		}
	}
	app, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(context.Background())
	for _, forbidden := range []string{
		"update journal set who = 0", "delete from journal", "truncate journal", "alter table journal disable trigger append_only",
		"update security_log set actor = null", "delete from security_log", "truncate security_log",
		"alter table security_log disable trigger append_only",
	} {
		if _, err := app.Exec(t.Context(), forbidden); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: got %v, want that it is not permitted", forbidden, err)
		}
	}
	cluster.Members[0].Stop(t)
	proctest.Verified(t, proctest.DataDir(t), "--database-url="+owner)
}
