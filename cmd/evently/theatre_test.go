package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/pgtest"
)

// theatre is a node over a database that the test reads too, with an administrator and users.
type theatre struct {
	*proctest.Node
	dir   string
	args  []string
	admin *proctest.Client
	users []*proctest.Client
	db    *pgx.Conn
}

// openTheatre starts a node. Settings are arguments of it.
func openTheatre(t *testing.T, users int, settings ...string) *theatre {
	t.Helper()
	dsn := pgtest.Database(t)
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(t.Context()) })
	o := &theatre{dir: proctest.DataDir(t), db: db}
	o.args = append([]string{"--database-url=" + dsn, "--rate-limit-book=off", "--rate-limit-auth=off"}, settings...)
	o.Node = proctest.Up(t, o.dir, o.args...)
	o.admin = o.Client(t, o.Login(t))
	for _, token := range o.Users(t, users) {
		o.users = append(o.users, o.Client(t, token))
	}
	return o
}

// restart ends the node, which loses all that is not stored, and starts another one.
func (o *theatre) restart(t *testing.T) {
	t.Helper()
	o.Signal(t, syscall.SIGTERM)
	o.Exit(t, proctest.StopMax)
	o.Node = proctest.Up(t, o.dir, o.args...)
	o.admin = o.Client(t, o.admin.Token)
	for i, user := range o.users {
		o.users[i] = o.Client(t, user.Token)
	}
}

// close ends the node and compares the rows with the journal.
func (o *theatre) close(t *testing.T) {
	t.Helper()
	o.Signal(t, syscall.SIGTERM)
	if exit := o.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
	proctest.Verified(t, o.dir, o.args[0])
}

// show publishes an event of one tier whose seats cost 1000. Fields replace those of the body.
func (o *theatre) show(t *testing.T, capacity int, ttl time.Duration, fields map[string]any) (path string) {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal([]byte(proctest.EventBody("Hamlet", capacity, ttl)), &body); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		body[name] = value
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return "/events/" + o.admin.Must(t, 201, "POST", "/admin/events", "", string(text)).Seats(t).ID
}

// book makes a booking of a user.
func (o *theatre) book(t *testing.T, path string, user, quantity int) (id string) {
	t.Helper()
	key := fmt.Sprintf("book-%d-%d", user, time.Now().UnixNano())
	id = o.users[user].Must(t, 201, "POST", path+"/book", key, fmt.Sprintf(`{"quantity":%d}`, quantity)).Seats(t).ID
	o.users[user].Must(t, 200, "POST", "/reservations/"+id+"/confirm", "", "")
	return id
}

func (o *theatre) cancel(t *testing.T, user int, id string) {
	t.Helper()
	o.users[user].Must(t, 200, "POST", "/bookings/"+id+"/cancel", "", "")
}

// place is an entry of a waitlist.
type place struct {
	ID            string     `json:"id"`
	Position      int        `json:"position"` // 0: it waits no more
	Status        string     `json:"status"`
	Priority      int        `json:"priority"`
	ExpiresAt     *time.Time `json:"expires_at"`
	ReservationID string     `json:"reservation_id"`
}

// join has a user wait for seats.
func (o *theatre) join(t *testing.T, path string, user, quantity int, onRelease string) (p place) {
	t.Helper()
	body := fmt.Sprintf(`{"quantity":%d,"on_release":%q}`, quantity, onRelease)
	into(t, o.users[user].Must(t, 201, "POST", path+"/waitlist", "join", body), &p)
	return p
}

// me is the place of a user.
func (o *theatre) me(t *testing.T, path string, user int) (p place) {
	t.Helper()
	into(t, o.users[user].Must(t, 200, "GET", path+"/waitlist/me", "", ""), &p)
	return p
}

// becomes waits until the place of a user has a status.
func (o *theatre) becomes(t *testing.T, path string, user int, status string) (p place) {
	t.Helper()
	proctest.Eventually(t, 20*time.Second, func() error {
		if p = o.me(t, path, user); p.Status != status {
			return fmt.Errorf("user %d is %s, want %s", user, p.Status, status)
		}
		return nil
	})
	return p
}

func into(t *testing.T, a proctest.Answer, out any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, out); err != nil {
		t.Fatalf("%v in %s", err, a.Body)
	}
}

// counts are those of the availability of an event, with those who wait.
func (o *theatre) counts(t *testing.T, path string) (counts struct{ Available, Held, Booked, Waitlisted int }) {
	t.Helper()
	into(t, o.admin.Must(t, 200, "GET", path+"/availability", "", ""), &counts)
	return counts
}

// entry is one of the journal.
type entry struct {
	kind evently.EntryKind
	at   time.Time
	who  int64
	tx   string // the transaction that wrote it
	data []byte // of the event
}

// journal reads the entries of an event in their order.
func (o *theatre) journal(t *testing.T, path string) (entries []entry) {
	t.Helper()
	id, err := evently.ParseEventID(strings.TrimPrefix(path, "/events/"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := o.db.Query(t.Context(), `select kind, at, coalesce(who, 0), xmin::text, coalesce(data::text, '') from journal where event_id = $1 order by seq`, int64(id))
	if err != nil {
		t.Fatal(err)
	}
	var e entry
	if _, err := pgx.ForEachRow(rows, []any{&e.kind, &e.at, &e.who, &e.tx, &e.data}, func() error {
		entries = append(entries, e)
		e.data = nil
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return entries
}

// kinds are those of entries.
func kinds(entries []entry) string {
	var names []string
	for _, e := range entries {
		names = append(names, e.kind.String())
	}
	return strings.Join(names, " ")
}
