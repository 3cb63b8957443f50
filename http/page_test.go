package http

import (
	"encoding/base64"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

func TestCursor_ReadsAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.SampledFrom([]listOrder{eventsByStart, eventsByPopularity, reservationsOfUser, reservationsOfEvent}).Draw(t, "list")
		want := evently.Cursor{
			Order: rapid.Int64Range(timeMin, timeMax).Filter(order.holds).Draw(t, "order"), Event: evently.EventID(rapid.Uint64().Draw(t, "event")),
			Token: evently.Token(rapid.Uint64().Draw(t, "token")),
		}
		text := nextCursor(&want, order)
		if got, ok := parseCursor(*text, order); !ok || *got != want {
			t.Fatalf("%+v reads as %+v from %s", want, got, *text)
		}
		if _, ok := parseCursor(*text, order%4+1); ok {
			t.Fatalf("a cursor of order %d is taken in another", order)
		}
	})
	if nextCursor(nil, eventsByStart) != nil {
		t.Error("there is a cursor at the end")
	}
}

func TestPage(t *testing.T) {
	w := newSite(t, nil, route{method: "GET", path: "/page", handle: func(c *gin.Context) error {
		page, err := pageOf(c, eventsByStart)
		if err != nil {
			return err
		}
		writeJSON(c, http.StatusOK, page)
		return nil
	}})
	cursor := *nextCursor(&evently.Cursor{Order: -1, Event: 2, Token: 3}, eventsByStart)
	for query, want := range map[string]string{
		"":                          `{"Limit":50,"After":null}`,
		"?unknown=1":                `{"Limit":50,"After":null}`,
		"?limit=1":                  `{"Limit":1,"After":null}`,
		"?limit=100":                `{"Limit":100,"After":null}`,
		"?limit=7&cursor=" + cursor: `{"Limit":7,"After":{"Order":-1,"Event":2,"Token":3}}`,
	} {
		if a := w.do(t, "GET", "/page"+query, ""); a.status != http.StatusOK || string(a.body) != want {
			t.Errorf("%s: %d %s, want %s", query, a.status, a.body, want)
		}
	}
	for _, limit := range []string{"", "0", "-1", "101", "1.5", "ten", "1e1", "99999999999999999999"} {
		w.do(t, "GET", "/page?limit="+limit, "").field(t, "limit")
	}
	otherVersion := base64.RawURLEncoding.EncodeToString(make([]byte, cursorBytes))
	for _, bad := range []string{
		"", "x", cursor[1:], cursor + "A", strings.Repeat("!", len(cursor)), otherVersion, cursor[:20] + "%0A" + cursor[21:],
	} {
		w.do(t, "GET", "/page?cursor="+bad, "").field(t, "cursor")
	}
	if p := w.do(t, "GET", "/page?limit=0&cursor=x", "").problem(t, evently.CodeInvalidRequest); len(p.Errors) != 2 {
		t.Errorf("errors are %v", p.Errors)
	}
}

// What clients send must not reach the database as a time or a number that no row has.
func TestCursor_ForgedOrForeignIsRefused(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 10, 100)), nil)
	user, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(2, who.User, seats("Floor", 10, 100)), nil)
	events, popular, bookings := "/events?", "/events?sort=popularity&", "/bookings?"
	ofEvent := "/admin/events/" + evently.EventID(2).String() + "/bookings?"
	for _, test := range []struct {
		path  string
		made  listOrder
		order int64
		taken bool
	}{
		{events, eventsByStart, timeMax, true},
		{events, eventsByStart, timeMin, true},
		{events, eventsByStart, timeMax + 1, false},
		{events, eventsByStart, timeMin - 1, false},
		{events, eventsByStart, math.MaxInt64, false},
		{events, eventsByPopularity, 0, false},
		{popular, eventsByPopularity, -10, true},
		{popular, eventsByPopularity, 1, false},
		{popular, eventsByPopularity, math.MinInt64, false},
		{popular, eventsByStart, 0, false},
		{bookings, reservationsOfUser, 0, true},
		{bookings, reservationsOfUser, math.MaxInt64, false},
		{bookings, reservationsOfEvent, 0, false},
		{ofEvent, reservationsOfEvent, 7, true},
		{ofEvent, reservationsOfEvent, -1, false},
		{ofEvent, reservationsOfUser, 7, false},
		{"/admin/events?", eventsByStart, math.MinInt64, false},
		{"/admin/events/capacity_utilization?", reservationsOfUser, 0, false},
	} {
		cursor := *nextCursor(&evently.Cursor{Order: test.order}, test.made)
		a := w.do(t, "GET", test.path+"cursor="+cursor, "", "Authorization", user)
		if !test.taken {
			a.field(t, "cursor")
		} else if a.status != http.StatusOK {
			t.Errorf("%+v: %d %s", test, a.status, a.body)
		}
	}
}
