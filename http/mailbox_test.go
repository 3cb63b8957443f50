package http

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/evently/evently"
)

// heldMail is a mailbox of one mail, or of an error.
type heldMail struct {
	to    string
	limit int
	err   error
}

func (h *heldMail) Messages(_ context.Context, to string, limit int) ([]evently.StoredMessage, error) {
	h.to, h.limit = to, limit
	if h.err != nil {
		return nil, h.err
	}
	if to != "ann@example.com" {
		return nil, nil
	}
	return []evently.StoredMessage{{Number: 1, Message: evently.Message{
		ID: "0f@tickets.example", Kind: evently.BookingConfirmedMail, From: "Evently <a@b.example>", To: to, Subject: "Booked", Text: "t", HTML: "<p>",
		Attachments: []evently.Attachment{{Name: "booking.ics", MediaType: "text/calendar", Content: []byte("ics")}},
		At:          time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC),
	}}}, nil
}

func TestMailbox(t *testing.T) {
	box := new(heldMail)
	site := newSite(t, func(c *Config) { c.Mailbox = box })
	ask := func(path string) *httptest.ResponseRecorder {
		answer := httptest.NewRecorder()
		site.server.AdminHandler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return answer
	}
	const mail = `{"data":[{"id":"0f@tickets.example","to":"ann@example.com","from":"Evently \u003ca@b.example\u003e","subject":"Booked",` +
		`"text":"t","html":"\u003cp\u003e","attachments":[{"name":"booking.ics","media_type":"text/calendar","content":"aWNz"}],` +
		`"kind":"booking_confirmed","at":"2026-03-29T01:00:00Z"}]}`
	for path, want := range map[string]string{
		"/dev/mailbox?to=Ann@Example.com+": mail, "/dev/mailbox?to=ben@example.com": `{"data":[]}`, "/dev/mailbox": `{"data":[]}`,
	} {
		if got := ask(path); got.Code != 200 || got.Body.String() != want || got.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d %s\nwant %s", path, got.Code, got.Body, want)
		}
	}
	if ask("/dev/mailbox?limit=7"); box.limit != 7 || box.to != "" {
		t.Errorf("asked for %d mails to %q", box.limit, box.to)
	}
	box.err = errors.New("connection refused: 10.0.0.1")
	for path, status := range map[string]int{"/dev/mailbox": 503, "/dev/mailbox?limit=0": 400, "/dev/mailbox?limit=101": 400, "/dev/mailbox?limit=x": 400} {
		got := ask(path)
		var told problem
		if err := json.Unmarshal(got.Body.Bytes(), &told); err != nil || got.Code != status || told.Status != status || told.Detail == "" ||
			got.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d %s (%v)", path, got.Code, got.Body, err)
		}
	}
}

// Beside a mail server there is no mailbox.
func TestMailbox_IsNotThere(t *testing.T) {
	answer := httptest.NewRecorder()
	newSite(t, nil).server.AdminHandler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/dev/mailbox", nil))
	if answer.Code != http.StatusNotFound {
		t.Errorf("status %d, want 404", answer.Code)
	}
}
