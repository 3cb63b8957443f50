package http

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

const exportOf1 = "/admin/events/evt_0000000000001/bookings.csv"

// exportBox has event 1 of an organizer with a reservation in each status: those of users[0] on expired, was confirmed, was
// cancelled, and is held.
func exportBox(t testing.TB) (w *site, box *fakeBox, organizer string, users []string) {
	t.Helper()
	w, box = newBoxSite(t)
	organizer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 1000), seats(`Balcony, "left"`, 10, 50)), nil)
	for i, person := range []evently.User{
		{Email: "ann@example.com", Name: "Ann"},
		{Email: "=cmd()@example.com", Name: "@SUM(1)"},
		{Email: "+1@example.com", Name: "-2\nBen, \"B\""},
		{},
	} {
		bearer, who := w.token(t, evently.RoleUser)
		box.people[who.User] = person
		users = append(users, who.User.String())
		_, r := w.book(t, 1, bearer, "k", fmt.Sprintf(`{"items":[{"tier_id":"t1","quantity":%d},{"tier_id":"t2","quantity":1}]}`, i+1))
		w.clock.add(time.Second)
		switch i {
		case 0:
			w.clock.add(10*time.Minute - time.Second)
			box.sweep(t, 1)
		case 1, 2:
			w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", bearer)
			if i == 2 {
				w.cancel(t, bearer, r.ID)
			}
		}
	}
	return w, box, organizer, users
}

// records reads an export, without the ids of the reservations.
func (a *answer) records(t testing.TB) (records []string) {
	t.Helper()
	list, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	if err != nil || a.status != 200 {
		t.Fatalf("status %d, %v: %s", a.status, err, a.body)
	}
	for i, record := range list {
		if i > 0 && !strings.HasPrefix(record[0], "rsv_0000000000001") {
			t.Errorf("id %q", record[0])
		}
		records = append(records, strings.Join(record[1:], "|"))
	}
	return records
}

func TestExport_HasEveryReservation(t *testing.T) {
	w, box, organizer, users := exportBox(t)
	a := w.do(t, "GET", exportOf1, "", "Authorization", organizer)
	for name, want := range map[string]string{
		"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": `attachment; filename="bookings-evt_0000000000001.csv"`,
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(string(a.body), "id,user_id,") || strings.Count(string(a.body), "\r\n") != 5+1 || !strings.HasSuffix(string(a.body), "\r\n") {
		t.Errorf("lines do not end as RFC 4180 has them: %q", a.body) // one name has a line break
	}
	want := []string{
		"user_id|email|name|status|tiers|quantity|unit_prices_minor|total_minor|currency|created_at|created_at_local|confirmed_at|cancelled_at",
		users[3] + `|||held|Floor x 4; Balcony, "left" x 1|5|1000; 50|4050|EUR|2027-03-01T12:10:02.000Z|2027-03-01T13:10:02.000+01:00||`,
		users[2] + "|'+1@example.com|'-2\nBen, \"B\"" + `|cancelled|Floor x 3; Balcony, "left" x 1|4|1000; 50|3050|EUR` +
			`|2027-03-01T12:10:01.000Z|2027-03-01T13:10:01.000+01:00|2027-03-01T12:10:02.000Z|2027-03-01T12:10:02.000Z`,
		users[1] + `|'=cmd()@example.com|'@SUM(1)|confirmed|Floor x 2; Balcony, "left" x 1|3|1000; 50|2050|EUR` +
			`|2027-03-01T12:10:00.000Z|2027-03-01T13:10:00.000+01:00|2027-03-01T12:10:01.000Z|`,
		users[0] + `|ann@example.com|Ann|expired|Floor x 1; Balcony, "left" x 1|2|1000; 50|1050|EUR` +
			`|2027-03-01T12:00:00.000Z|2027-03-01T13:00:00.000+01:00||`,
	}
	if got := a.records(t); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// In pages it is the same, and filtered it is a part.
	box.exportPage = 1
	if paged := w.do(t, "GET", exportOf1, "", "Authorization", organizer); string(paged.body) != string(a.body) {
		t.Errorf("in pages:\n%s", paged.body)
	}
	some := w.do(t, "GET", exportOf1+"?status=held,expired", "", "Authorization", organizer).records(t)
	if len(some) != 3 || some[1] != want[1] || some[2] != want[4] {
		t.Errorf("held and expired:\n%s", strings.Join(some, "\n"))
	}
	if head := w.do(t, "HEAD", exportOf1, "", "Authorization", organizer); head.status != 200 ||
		head.header.Get("Content-Type") != "text/csv; charset=utf-8" || len(head.body) > 0 {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
}

func TestExport_CellsAreInert(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "Ann": "Ann", "a=b": "a=b", " =1": " =1", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@a": "'@a", "\ta": "'\ta", "\ra": "'\ra", "'=1": "'=1",
		"é": "é",
	} {
		if got := inert(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestExport_IsForThoseWhoManageTheEvent(t *testing.T) {
	w, box, organizer, _ := exportBox(t)
	stranger, _ := w.token(t, evently.RoleOrganizer)
	user, _ := w.token(t, evently.RoleUser)
	admin, _ := w.token(t, evently.RoleAdmin)
	w.do(t, "GET", exportOf1, "", "Authorization", stranger).problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", exportOf1, "", "Authorization", user).problem(t, evently.CodeForbidden)
	w.do(t, "GET", exportOf1, "").problem(t, evently.CodeUnauthenticated)
	w.do(t, "GET", exportOf1+"?status=lost", "", "Authorization", organizer).field(t, "status")
	if got := w.do(t, "GET", exportOf1, "", "Authorization", admin).records(t); len(got) != 5 {
		t.Errorf("an admin gets %d records", len(got))
	}
	box.exporting = func(context.Context, evently.Page) error { return evently.ErrUnavailable }
	w.do(t, "GET", exportOf1, "", "Authorization", organizer).problem(t, evently.CodeUnavailable)
}

// What is not complete does not look as if it were.
func TestExport_IsCutWhenAPageFails(t *testing.T) {
	w, box, organizer, _ := exportBox(t)
	box.exportPage = 2
	box.exporting = func(_ context.Context, page evently.Page) error {
		if page.After != nil {
			return fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
		}
		return nil
	}
	if a, err := w.try(t.Context(), "GET", exportOf1, "", "Authorization", organizer); err == nil {
		t.Errorf("the answer is complete: %s", a.body)
	}
	logged := strings.Join(w.logs.lines(), "")
	if !strings.Contains(logged, "request failed") || !strings.Contains(logged, "unexpected EOF") {
		t.Errorf("the failure is not logged: %s", logged)
	}
}

// An export may take longer than other requests, and there are a bounded number of them at a time.
func TestExport_HasTimeAndBounds(t *testing.T) {
	w, box, organizer, _ := exportBox(t)
	box.exportPage = 1
	box.exporting = func(ctx context.Context, _ evently.Page) error {
		if deadline, found := ctx.Deadline(); !found || time.Until(deadline) < exportWorkMax/2 {
			return fmt.Errorf("an export has until %v", deadline)
		}
		return nil
	}
	var releases []func()
	for other := range evently.UserID(exportsMax) {
		release, err := w.server.exports.take(1_000_000 + other)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	w.do(t, "GET", exportOf1, "", "Authorization", organizer).problem(t, evently.CodeOverloaded)
	releases[0]()
	for range 2 { // each gives its place back
		if got := w.do(t, "GET", exportOf1, "", "Authorization", organizer).records(t); len(got) != 5 {
			t.Errorf("%d records, want 5", len(got))
		}
	}
}
