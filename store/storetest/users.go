package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// logged is the security log of a user, newest first.
func logged(t *testing.T, accounts evently.Accounts, user evently.UserID) []*evently.SecurityEntry {
	t.Helper()
	entries, _, err := accounts.SecurityLog(t.Context(), user, evently.Page{Limit: evently.PageLimitMax})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func lastLogged(t *testing.T, accounts evently.Accounts, user evently.UserID) *evently.SecurityEntry {
	t.Helper()
	entries := logged(t, accounts, user)
	if len(entries) == 0 {
		t.Fatal("nothing is logged")
	}
	return entries[0]
}

// wantLog checks what was logged, newest first.
func wantLog(t *testing.T, accounts evently.Accounts, user evently.UserID, want ...evently.SecurityKind) {
	t.Helper()
	var got []evently.SecurityKind
	for _, entry := range logged(t, accounts, user) {
		got = append(got, entry.Kind)
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged: %q, want %q", got, want)
	}
}

func usersAreListedNewestFirst(t *testing.T, accounts evently.Accounts) {
	var want []*evently.User
	for i := range 7 {
		user := newUser(fmt.Sprintf("user%d@example.org", i))
		user.Name, user.Role = fmt.Sprintf("Name_%d", i), evently.Role(i%3)
		user.CreatedAt = now.Add(time.Duration(i/2) * time.Second) // two at a time
		if err := accounts.CreateUser(t.Context(), user, nil, at(now)); err != nil {
			t.Fatal(err)
		}
		want = append(want, user)
	}
	slices.SortFunc(want, func(a, b *evently.User) int {
		if later := b.CreatedAt.Compare(a.CreatedAt); later != 0 {
			return later
		}
		return int(min(max(int64(b.ID)/2-int64(a.ID)/2, -1), 1))
	})
	list := func(filter evently.UserFilter, limit int) (got []*evently.User) {
		t.Helper()
		page := evently.Page{Limit: limit}
		for {
			users, next, err := accounts.Users(t.Context(), filter, page)
			if err != nil || len(users) > limit {
				t.Fatalf("%d users, %v", len(users), err)
			}
			got = append(got, users...)
			if next == nil {
				return got
			}
			page.After = next
		}
	}
	for _, limit := range []int{1, 2, 3, 7, 100} {
		if diff := cmp.Diff(want, list(evently.UserFilter{}, limit)); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
		}
	}
	role := evently.RoleAdmin
	for name, c := range map[string]struct {
		filter evently.UserFilter
		want   func(*evently.User) bool
	}{
		"address": {evently.UserFilter{Text: "USER3@"}, func(u *evently.User) bool { return u.Email == "user3@example.org" }},
		"name":    {evently.UserFilter{Text: "e_4"}, func(u *evently.User) bool { return u.Name == "Name_4" }},
		"pattern": {evently.UserFilter{Text: "%"}, func(*evently.User) bool { return false }},
		"role":    {evently.UserFilter{Role: &role}, func(u *evently.User) bool { return u.Role == role }},
		"both":    {evently.UserFilter{Text: "user5", Role: &role}, func(u *evently.User) bool { return u.Email == "user5@example.org" }},
	} {
		wanted := slices.DeleteFunc(slices.Clone(want), func(u *evently.User) bool { return !c.want(u) })
		if diff := cmp.Diff(wanted, list(c.filter, 2)); diff != "" && len(wanted) > 0 || len(wanted) != len(list(c.filter, 2)) {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func roleChangeEndsTheSessions(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	admin := at(now)
	admin.Actor = 7
	got, revoked, err := accounts.ChangeRole(t.Context(), user.ID, evently.RoleAdmin, admin)
	if err != nil || got.Role != evently.RoleAdmin || !slices.Equal(revoked, []evently.SessionID{session.ID}) {
		t.Fatalf("%+v %v %v", got, revoked, err)
	}
	if read, err := accounts.User(t.Context(), user.ID); err != nil || read.Role != evently.RoleAdmin {
		t.Errorf("%+v %v", read, err)
	}
	if _, err := rotate(t, accounts, session.ID, 1, 2, now); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("got %v, want %v", err, evently.ErrSessionEnded)
	}
	want := &evently.SecurityEntry{
		At: now, User: user.ID, Kind: evently.SecurityRoleChanged, Actor: 7, IP: admin.IP, UserAgent: admin.UserAgent, RequestID: "req-1",
		Detail: map[string]string{"from": "organizer", "to": "admin", "sessions": "1"},
	}
	entry := *lastLogged(t, accounts, user.ID)
	entry.ID = 0
	if diff := cmp.Diff(want, &entry); diff != "" {
		t.Errorf("logged (-want +got):\n%s", diff)
	}
	// The same role again changes nothing.
	again := newSession(user.ID)
	createSession(t, accounts, again)
	if _, revoked, err := accounts.ChangeRole(t.Context(), user.ID, evently.RoleAdmin, admin); err != nil || len(revoked) != 0 {
		t.Errorf("%v %v", revoked, err)
	}
	if lastLogged(t, accounts, user.ID).Kind != evently.SecuritySignedIn {
		t.Error("nothing changed, and it is logged")
	}
	if _, _, err := accounts.ChangeRole(t.Context(), user.ID+1, evently.RoleUser, admin); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("nobody: got %v, want %v", err, evently.ErrNotFound)
	}
}

func thereAlwaysIsAnAdministrator(t *testing.T, accounts evently.Accounts) {
	const admins = 20
	ids := make([]evently.UserID, admins)
	for i := range ids {
		user := newUser(fmt.Sprintf("admin%d@example.org", i))
		user.Role = evently.RoleAdmin
		if err := accounts.CreateUser(t.Context(), user, nil, at(now)); err != nil {
			t.Fatal(err)
		}
		ids[i] = user.ID
	}
	results := concurrently(admins, func(i int) error {
		_, _, err := accounts.ChangeRole(t.Context(), ids[i], evently.RoleUser, at(now))
		return err
	})
	if last := count(results, evently.ErrLastAdmin); last != 1 || count(results, nil) != admins-1 {
		t.Errorf("%d of %d were refused: %v", last, admins, results)
	}
	role := evently.RoleAdmin
	left, _, err := accounts.Users(t.Context(), evently.UserFilter{Role: &role}, evently.Page{Limit: 5})
	if err != nil || len(left) != 1 {
		t.Fatalf("%d administrators are left, %v", len(left), err)
	}
	if _, _, err := accounts.ChangeRole(t.Context(), left[0].ID, evently.RoleOrganizer, at(now)); !errors.Is(err, evently.ErrLastAdmin) {
		t.Errorf("got %v, want %v", err, evently.ErrLastAdmin)
	}
	if _, _, err := accounts.ChangeRole(t.Context(), left[0].ID, evently.RoleAdmin, at(now)); err != nil {
		t.Errorf("the role that the last one has: %v", err)
	}
}

func securityLogIsOfOneUserAndInPages(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	other := newUser("other@example.org")
	if err := accounts.CreateUser(t.Context(), other, nil, at(now)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		createSession(t, accounts, newSession(user.ID))
	}
	all := logged(t, accounts, user.ID)
	if len(all) != 7 {
		t.Fatalf("%d entries", len(all))
	}
	signedIn := all[5]
	if signedIn.Kind != evently.SecuritySignedIn || signedIn.Actor != user.ID || signedIn.Session != session.ID || !signedIn.At.Equal(now) {
		t.Errorf("%+v", signedIn)
	}
	var got []*evently.SecurityEntry
	page := evently.Page{Limit: 2}
	for {
		entries, next, err := accounts.SecurityLog(t.Context(), user.ID, page)
		if err != nil || len(entries) > page.Limit {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		got = append(got, entries...)
		if next == nil {
			break
		}
		page.After = next
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("in pages (-all +got):\n%s", diff)
	}
	wantLog(t, accounts, other.ID, evently.SecurityRegistered)
}
