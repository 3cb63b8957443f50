package http

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

// prompt is an engine that holds what is asked for, at once.
type prompt struct{ at time.Time }

func (p prompt) Do(_ context.Context, request *evently.Request) (evently.Reply, error) {
	book := request.Command.(*evently.Book)
	return evently.Reply{Reservation: evently.Reservation{
		ID: evently.ReservationID{Event: request.Event, Token: book.Token}, User: book.User, Status: evently.Held, Items: book.Items,
		Currency: "EUR", CreatedAt: p.at, ExpiresAt: p.at.Add(time.Minute), Seq: 2,
	}}, nil
}

// One operation is a booking of a user with a token, through all of the middleware, at an engine that answers at once.
func BenchmarkHandler_Book(b *testing.B) {
	config := newConfig()
	config.Engine = prompt{time.Now().UTC().Truncate(time.Millisecond)}
	config.BookLimit = Limit{limitRequestsMax, time.Second}
	server, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	if err := server.mount(server.routes()); err != nil {
		b.Fatal(err)
	}
	token, err := server.tokens.sign(evently.Principal{User: 7, Session: evently.SessionID{1}})
	if err != nil {
		b.Fatal(err)
	}
	body := `{"items":[{"tier_id":"` + evently.TierID(0) + `","quantity":2}]}`
	reader := strings.NewReader(body)
	request, err := http.NewRequest("POST", "/events/evt_0000000000001/book", reader)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Idempotency-Key", "key-1")
	w := &counted{nowhere: nowhere{make(http.Header)}}
	handler := server.Handler()
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		clear(w.header)
		handler.ServeHTTP(w, request)
	}
	if w.status != http.StatusCreated {
		b.Fatalf("answered %d", w.status)
	}
}

// counted knows the last status.
type counted struct {
	nowhere
	status int
}

func (w *counted) WriteHeader(status int) { w.status = status }
