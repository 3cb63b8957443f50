package http

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// nowhere is a ResponseWriter that keeps its header.
type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w *nowhere) WriteHeader(int)             {}

var benchBody = []byte(`{"id":"rsv_0000000000000","status":"held"}`)

// BenchmarkChain is the cost of everything around a handler: what a booking pays before and after its own work.
func BenchmarkChain(b *testing.B) {
	answer := func(c *gin.Context) error {
		writeBody(c, http.StatusCreated, benchBody)
		return nil
	}
	config := newConfig()
	config.BookLimit = Limit{limitRequestsMax, time.Second}
	server, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	if err := server.mount([]route{
		{method: "POST", path: "/public", handle: answer},
		{method: "POST", path: "/events/:id/book", handle: answer, access: accountOwn, limit: limitBook, key: keyBook},
		{method: "POST", path: "/refused", handle: func(*gin.Context) error { return evently.ErrSoldOut }},
	}); err != nil {
		b.Fatal(err)
	}
	token, err := server.tokens.sign(evently.Principal{User: 7, Session: evently.SessionID{1}})
	if err != nil {
		b.Fatal(err)
	}
	bare := gin.New()
	bare.POST("/bare", func(c *gin.Context) { c.Data(http.StatusCreated, "application/json", benchBody) })
	for _, c := range []struct {
		name, path string
		handler    http.Handler
	}{
		{"bare gin", "/bare", bare},
		{"public", "/public", server.Handler()},
		{"book", "/events/evt_0000000000000/book", server.Handler()},
		{"refused", "/refused", server.Handler()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			const body = `{"quantity":2}`
			reader := strings.NewReader(body)
			request, err := http.NewRequest("POST", c.path, reader)
			if err != nil {
				b.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Authorization", "Bearer "+token)
			request.Header.Set("Idempotency-Key", "key-1")
			w := &nowhere{make(http.Header)}
			for b.Loop() {
				reader.Reset(body)
				clear(w.header)
				c.handler.ServeHTTP(w, request)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	text := []byte(`{"email":"ada@example.com","password":"correct horse battery staple","name":"Ada Lovelace"}`)
	b.ReportAllocs()
	for b.Loop() {
		var asked struct {
			Email    string `json:"email"`
			Password string `json:"password"`
			Name     string `json:"name"`
		}
		if err := decodeJSON(text, &asked); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	config := newConfig()
	server, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	token, err := server.tokens.sign(evently.Principal{User: 7, Session: evently.SessionID{1}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("first time", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := server.tokens.parse(token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("remembered", func(b *testing.B) {
		now := time.Now()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := server.tokens.verify(token, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLimiter is a request of another user each time, alone and with others who are told.
func BenchmarkLimiter(b *testing.B) {
	now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"alone", "shared"} {
		b.Run(name, func(b *testing.B) {
			metrics := newMetrics(prometheus.NewRegistry())
			limiter := newLimiter[evently.UserID]("book", Limit{10, time.Minute}, metrics.rateLimited)
			if name == "shared" {
				limiter.lost = metrics.sharesLost
			}
			b.ReportAllocs()
			for user := evently.UserID(0); b.Loop(); user++ {
				limiter.take(user, now)
				if user%1000 == 0 { // what 10,000 requests a second are in a period
					newShare(limiter.tell(shareUsersMax))
				}
			}
		})
	}
}

// BenchmarkTakenElsewhere is a message of 1,000 users.
func BenchmarkTakenElsewhere(b *testing.B) {
	config := newConfig()
	config.BookLimit = Limit{10, time.Minute}
	server, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	var allowed []allowance[evently.UserID]
	for user := range evently.UserID(1000) {
		allowed = append(allowed, allowance[evently.UserID]{user + 1, 1})
	}
	body := newShare(allowed)
	b.ReportAllocs()
	for b.Loop() {
		server.TakenElsewhere("n2", body)
	}
}

// BenchmarkAccessLog is what a line for each request adds.
func BenchmarkAccessLog(b *testing.B) {
	config := newConfig()
	config.AccessLog = 1
	config.Logger = slog.New(slog.NewJSONHandler(io.Discard, nil))
	server, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	request, err := http.NewRequest("GET", "/livez", nil)
	if err != nil {
		b.Fatal(err)
	}
	w := &nowhere{make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		server.Handler().ServeHTTP(w, request)
	}
}
