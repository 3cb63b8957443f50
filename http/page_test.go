package http

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

func TestCursor_ReadsAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := evently.Cursor{
			Order: rapid.Int64().Draw(t, "order"), Event: evently.EventID(rapid.Uint64().Draw(t, "event")),
			Token: evently.Token(rapid.Uint64().Draw(t, "token")),
		}
		text := nextCursor(&want)
		if got, ok := parseCursor(*text); !ok || *got != want {
			t.Fatalf("%+v reads as %+v from %s", want, got, *text)
		}
	})
	if nextCursor(nil) != nil {
		t.Error("there is a cursor at the end")
	}
}

func TestPage(t *testing.T) {
	w := newSite(t, nil, route{method: "GET", path: "/page", handle: func(c *gin.Context) error {
		page, err := pageOf(c)
		if err != nil {
			return err
		}
		writeJSON(c, http.StatusOK, page)
		return nil
	}})
	cursor := *nextCursor(&evently.Cursor{Order: -1, Event: 2, Token: 3})
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
