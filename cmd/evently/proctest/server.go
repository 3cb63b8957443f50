package proctest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently/http/apitest"
)

// Server is how a node is reached.
type Server struct {
	API        string // the base of the API's URLs
	Operations string // the base of the operators' URLs
	Email      string // of the administrator
	Password   string

	checked *http.Client // see Do
}

// Node is a process that serves.
type Node struct {
	*Process
	Server
}

// Up runs `evently up` and returns when it serves.
func Up(t testing.TB, dataDir string, args ...string) *Node {
	t.Helper()
	n := &Node{Process: Launch(t, dataDir, append([]string{"up"}, args...)...)}
	n.API = n.Await(t, `^API +(http://\S+)`)[1]
	n.Operations = n.Await(t, `^Operations +(http://\S+)/metrics`)[1]
	login := n.Await(t, `^Admin +(\S+), password (\S+)`)
	n.Email, n.Password = login[1], login[2]
	n.Await(t, `^Ready`)
	return n
}

// Client is one that holds every answer to the API's document.
func (s *Server) Client(t testing.TB, token string) *Client {
	t.Helper()
	return &Client{HTTP: apitest.NewClient(t, s.API), API: s.API, Token: token}
}

// Do makes a request, holds the answer to the API's document, and decodes the answer into out, if any. The Idempotency-Key is
// the same for the same method and path.
func (s *Server) Do(t testing.TB, wantStatus int, method, path, token, body string, out any) {
	t.Helper()
	if s.checked == nil {
		s.checked = apitest.NewClient(t, s.API)
	}
	key := ""
	if body != "" {
		key = method + path
	}
	answer := (&Client{HTTP: s.checked, API: s.API, Token: token}).Must(t, wantStatus, method, path, key, body)
	if out != nil {
		if err := json.Unmarshal(answer.Body, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, answer.Body)
		}
	}
}

// Login signs the administrator in.
func (s *Server) Login(t testing.TB) (token string) {
	t.Helper()
	return login(t, s.Client(t, ""), s.Email, s.Password)
}

func login(t testing.TB, c *Client, email, password string) (token string) {
	t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	c.Must(t, 200, "POST", "/login", "", fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)).decode(t, &answer)
	return answer.AccessToken
}

// Users registers users named from user0 on and returns their tokens.
func (s *Server) Users(t testing.TB, count int) (tokens []string) {
	t.Helper()
	const password = "a-long-enough-password"
	c := s.Client(t, "")
	for i := range count {
		email := fmt.Sprintf("user%d@example.com", i)
		c.Must(t, 201, "POST", "/register", "", fmt.Sprintf(`{"email":%q,"password":%q,"name":"User"}`, email, password))
		tokens = append(tokens, login(t, c, email, password))
	}
	return tokens
}

// EventBody is the body that publishes an event of one tier, which starts in two days.
func EventBody(name string, capacity int, ttl time.Duration) string {
	starts := time.Now().Add(48 * time.Hour).UTC()
	return fmt.Sprintf(`{"name":%q,"starts_at":%q,"ends_at":%q,"timezone":"Europe/Vienna","currency":"EUR","capacity":%d,
		"base_price_minor":1000,"hold_ttl_seconds":%d}`, name, starts.Format(time.RFC3339), starts.Add(time.Hour).Format(time.RFC3339),
		capacity, int(ttl.Seconds()))
}

// CreateEvent publishes an event of one tier.
func (s *Server) CreateEvent(t testing.TB, capacity int, ttl time.Duration) (path string) {
	t.Helper()
	admin := s.Client(t, s.Login(t))
	return "/events/" + admin.Must(t, 201, "POST", "/admin/events", "create", EventBody("Final", capacity, ttl)).Seats(t).ID
}

// probeMax bounds one question to a node about its state.
const probeMax = 5 * time.Second

// get asks for a page on a connection of its own.
func get(ctx context.Context, url string) (status int, text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy: nodes are on this machine
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// Probe asks for one of /health, /livez and /readyz and returns nil when the answer is 200.
func (s *Server) Probe(ctx context.Context, path string) error {
	status, text, err := get(ctx, s.API+path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", path, status, text)
	}
	return err
}

// Status is that of the answer to one of them.
func (s *Server) Status(ctx context.Context, path string) (int, error) {
	status, _, err := get(ctx, s.API+path)
	return status, err
}

// Healthy waits until the node serves with all that it needs.
func (s *Server) Healthy(t testing.TB) {
	t.Helper()
	Eventually(t, UpMax, func() error { return s.Probe(t.Context(), "/health") })
}

// ReadMetric is the sum of the series of a metric that have all of the labels, given as `name="value"`.
func (s *Server) ReadMetric(ctx context.Context, name string, labels ...string) (sum float64, err error) {
	status, text, err := get(ctx, s.Operations+"/metrics")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	series := regexp.MustCompile(`(?m)^`+name+`(\{.*\})? (\S+)$`).FindAllSubmatch(text, -1)
	if series == nil {
		return 0, fmt.Errorf("no metric %s", name)
	}
	for _, one := range series {
		wanted := true
		for _, label := range labels {
			wanted = wanted && strings.Contains(string(one[1]), label)
		}
		if !wanted {
			continue
		}
		value, err := strconv.ParseFloat(string(one[2]), 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += value
	}
	return sum, nil
}

// CollectGarbage has the node collect garbage, so that what it has in use can be told from what it has not freed yet.
func (s *Server) CollectGarbage(ctx context.Context) error {
	status, text, err := get(ctx, s.Operations+"/debug/pprof/heap?gc=1")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("heap profile: status %d: %s", status, text)
	}
	return err
}

// Metric is ReadMetric for a node that has to answer, if not at once.
func (s *Server) Metric(t testing.TB, name string, labels ...string) (value float64) {
	t.Helper()
	Eventually(t, UpMax, func() (err error) {
		value, err = s.ReadMetric(t.Context(), name, labels...)
		return err
	})
	return value
}
