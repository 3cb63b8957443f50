package proctest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently/http/apitest"
)

// Client makes requests for one user, or with no Token for anybody.
type Client struct {
	HTTP  *http.Client
	API   string // the base of all URLs
	Token string
	User  string // the id of Token's user, where somebody wants to know
}

// Answer is a response.
type Answer struct {
	Status     int
	Replayed   bool          // the first answer to the key, again
	RetryAfter time.Duration // 0: not told
	Body       []byte
}

// attemptMax bounds one request under load. It is longer than a node takes to give up by itself.
const attemptMax = 20 * time.Second

// Plain is a client for load that is to be heavy: a check of an answer costs as much as some twenty requests.
func Plain(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: attemptMax}
}

// Checking is a client for load that holds every answer to the API's document. It does not wait for ever.
func Checking(t testing.TB, api string) *http.Client {
	t.Helper()
	c := apitest.NewClient(t, api)
	c.Timeout = attemptMax
	return c
}

// Send returns the answer, or an error when there was none: then the outcome is unknown. header is further names and values.
func (c *Client) Send(ctx context.Context, method, path, key, body string, header ...string) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.API+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // absent or a date: not told
	return Answer{
		Status: response.StatusCode, Replayed: response.Header.Get("Idempotency-Replayed") == "true",
		RetryAfter: time.Duration(seconds) * time.Second, Body: text,
	}, err
}

// Must sends a request that has an answer of a status.
func (c *Client) Must(t testing.TB, wantStatus int, method, path, key, body string, header ...string) Answer {
	t.Helper()
	got, err := c.Send(t.Context(), method, path, key, body, header...)
	if err != nil || got.Status != wantStatus {
		t.Fatalf("%s %s: got %d %s (%v), want %d", method, path, got.Status, got.Body, err, wantStatus)
	}
	return got
}

// Seats is the part of a reservation or of an availability that tests add up.
type Seats struct {
	ID                                string
	UserID                            string `json:"user_id"`
	Status                            string
	Quantity                          int
	ExpiresAt                         time.Time `json:"expires_at"`
	Capacity, Available, Held, Booked int
}

// Seats decodes a reservation or an availability.
func (a Answer) Seats(t testing.TB) (s Seats) {
	t.Helper()
	a.decode(t, &s)
	return s
}

// Code is that of a problem.
func (a Answer) Code(t testing.TB) string {
	t.Helper()
	var problem struct{ Code string }
	a.decode(t, &problem)
	return problem.Code
}

func (a Answer) decode(t testing.TB, out any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, out); err != nil {
		t.Errorf("%v in %s", err, a.Body) // not Fatal: load comes from goroutines of its own
	}
}
