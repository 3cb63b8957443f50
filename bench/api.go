package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/errgroup"

	"github.com/evently/evently"
)

// API is a system that is known by its API alone. It is a Host, of the one design that runs there, and the Storage of its events.
// The events stay when all is done.
type API struct {
	URL   string
	Admin string // access token of an administrator or organizer
	Users []User // who book
}

var (
	_ Host    = (*API)(nil)
	_ Storage = (*API)(nil)
)

const (
	apiClients   = 8                // requests at a time
	apiTimeout   = 5 * time.Minute  // of one request, as of an export
	apiTries     = 10               // of a request that is refused for now
	apiAgain     = 2 * time.Second  // between tries, unless the answer tells
	apiAgainMax  = 30 * time.Second // whatever the answer tells
	apiLag       = 1500 * time.Millisecond
	apiBytesMax  = 1 << 20 // of an answer that is one value
	tokenLineMax = 8 << 10
)

var apiHTTP = &http.Client{Timeout: apiTimeout}

// Start implements Host. There is nothing to start or stop.
func (a *API) Start(context.Context, string) (*Target, error) {
	return &Target{URL: a.URL, Users: a.Users, Admin: a.Admin, Storage: a, Stop: func(context.Context) error { return nil }}, nil
}

// call sends a request, again when it is refused for now, and hands over an answer of the status that is wanted.
func call(ctx context.Context, base, token string, want int, method, path string, body any, take func(http.Header, io.Reader) error) error {
	return callWithKey(ctx, base, token, "", want, method, path, body, take)
}

// callWithKey is call with an Idempotency-Key, unless that is empty.
func callWithKey(
	ctx context.Context, base, token, key string, want int, method, path string, body any, take func(http.Header, io.Reader) error,
) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(base, "/")+path, bytes.NewReader(text))
		if err != nil {
			return err
		}
		if body != nil {
			request.Header.Set("Content-Type", "application/json")
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		if key != "" {
			request.Header.Set("Idempotency-Key", key)
		}
		again, err := answer(request, want, take)
		if err == nil || again == 0 || try == apiTries {
			return err
		}
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, ctx.Err())
		}
	}
}

// answer returns an error and when to try again; zero: never.
func answer(request *http.Request, want int, take func(http.Header, io.Reader) error) (again time.Duration, err error) {
	response, err := apiHTTP.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode == want {
		if take == nil {
			return 0, nil
		}
		return 0, take(response.Header, response.Body)
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, exampleMax)) // part of an error: what there is
	err = fmt.Errorf("%s %s: %s %s", request.Method, request.URL.Path, response.Status, text)
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode != http.StatusServiceUnavailable {
		return 0, err
	}
	again = apiAgain
	if seconds, failed := strconv.Atoi(response.Header.Get("Retry-After")); failed == nil {
		again = min(time.Duration(seconds)*time.Second, apiAgainMax)
	}
	return again, err
}

// decoding decodes a body into a value.
func decoding(into any) func(http.Header, io.Reader) error {
	return func(_ http.Header, body io.Reader) error {
		return json.NewDecoder(io.LimitReader(body, apiBytesMax)).Decode(into)
	}
}

// PublishEvents publishes events of one tier and returns their ids.
func PublishEvents(ctx context.Context, url, admin, name string, count, capacity int) ([]evently.EventID, error) {
	starts := time.Now().Add(eventLead).UTC().Truncate(time.Second)
	body := map[string]any{
		"name": name, "category": "Bench", "venue": "Hall", "city": "Vienna", "timezone": "Europe/Vienna", "currency": "EUR",
		"starts_at": starts, "ends_at": starts.Add(eventTime), "hold_ttl_seconds": int(eventHold.Seconds()),
		"capacity": capacity, "base_price_minor": eventPrice,
	}
	events := make([]evently.EventID, count)
	err := eachOf(ctx, events, func(ctx context.Context, i int) error {
		var made struct{ ID string }
		err := call(ctx, url, admin, http.StatusCreated, "POST", "/admin/events", body, decoding(&made))
		if err == nil {
			events[i], err = evently.ParseEventID(made.ID)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("publish events: %w", err)
	}
	return events, nil
}

// eachOf calls do for all indices of a list, some at a time.
func eachOf[T any](ctx context.Context, list []T, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(apiClients)
	for i := range list {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return do(ctx, i)
		})
	}
	return group.Wait()
}

// Login signs a user in and returns the access token.
func Login(ctx context.Context, url, email, password string) (token string, err error) {
	var answer struct {
		Access string `json:"access_token"`
	}
	body := map[string]string{"email": email, "password": password}
	if err := call(ctx, url, "", http.StatusOK, "POST", "/login", body, decoding(&answer)); err != nil {
		return "", fmt.Errorf("sign in: %w", err)
	}
	return answer.Access, nil
}

// RegisterUsers registers users and signs them in. Nodes limit how often that can be done from one address, and hashing a password
// takes its time: for more than some it is better to bring tokens. It returns a *LimitedError where the limit does not let all of them in
// at once, behind the administrator, who has signed in before.
func RegisterUsers(ctx context.Context, url string, count int) ([]User, error) {
	users := make([]User, count)
	run := random64()
	register := func(ctx context.Context, i int, take func(http.Header, io.Reader) error) error {
		login := map[string]string{"email": fmt.Sprintf("bench-%x-%d@example.com", run, i), "password": fmt.Sprintf("%x-%x", run, random64())}
		register := map[string]string{"email": login["email"], "password": login["password"], "name": "Bench"}
		if err := call(ctx, url, "", http.StatusCreated, "POST", "/register", register, take); err != nil {
			return err
		}
		token, err := Login(ctx, url, login["email"], login["password"])
		if err == nil {
			users[i], err = userOf(token)
		}
		return err
	}
	err := register(ctx, 0, func(header http.Header, _ io.Reader) error {
		return limitedBelow(header, "auth", func(limit) float64 { return float64(1 + 2*count) }) // to register, and to sign in
	})
	if err == nil {
		err = eachOf(ctx, users[1:], func(ctx context.Context, i int) error { return register(ctx, i+1, nil) })
	}
	if err != nil {
		return nil, fmt.Errorf("register users: %w", err)
	}
	return users, nil
}

// ReadTokens reads access tokens, one a line. Empty lines and those that begin with # do not count.
func ReadTokens(r io.Reader) ([]User, error) {
	var users []User
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, tokenLineMax)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, err := userOf(line)
		if err != nil {
			return nil, fmt.Errorf("read tokens: token %d: %w", len(users)+1, err)
		}
		users = append(users, user)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	if len(users) == 0 {
		return nil, errors.New("read tokens: there is none")
	}
	return users, nil
}

// userOf reads whose an access token is. Whether it is valid the target will say.
func userOf(token string) (User, error) {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		return User{}, err
	}
	id, err := evently.ParseUserID(claims.Subject)
	return User{id, token}, err
}

// Reservations implements Storage by the exports of bookings. They do not tell keys.
func (a *API) Reservations(ctx context.Context, events []evently.EventID, row func(Stored)) error {
	for _, event := range events { // one at a time: a user may not have more exports under way
		path := "/admin/events/" + event.String() + "/bookings.csv"
		err := call(ctx, a.URL, a.Admin, http.StatusOK, "GET", path, nil, func(_ http.Header, body io.Reader) error {
			return readExport(body, row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func readExport(body io.Reader, row func(Stored)) error {
	lines := csv.NewReader(body)
	lines.ReuseRecord = true
	names, err := lines.Read()
	if err != nil {
		return err
	}
	at := make(map[string]int)
	for i, name := range names {
		at[name] = i
	}
	for _, name := range []string{"id", "user_id", "status", "quantity"} {
		if _, found := at[name]; !found {
			return fmt.Errorf("the export has no column %s", name)
		}
	}
	for {
		cells, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var r Stored
		var wrong [4]error
		r.ID, wrong[0] = evently.ParseReservationID(cells[at["id"]])
		r.User, wrong[1] = evently.ParseUserID(cells[at["user_id"]])
		r.Status, wrong[2] = evently.ParseReservationStatus(cells[at["status"]])
		r.Quantity, wrong[3] = strconv.Atoi(cells[at["quantity"]])
		if err := errors.Join(wrong[:]...); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		row(r)
	}
}

// Counts implements Storage by the availability of the events, which nodes may know with a delay of a second.
func (a *API) Counts(ctx context.Context, events []evently.EventID) (map[evently.EventID]Count, error) {
	timer := time.NewTimer(apiLag)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var mu sync.Mutex
	counts := make(map[evently.EventID]Count, len(events))
	err := eachOf(ctx, events, func(ctx context.Context, i int) error {
		var count Count
		path := "/events/" + events[i].String() + "/availability"
		if err := call(ctx, a.URL, a.Admin, http.StatusOK, "GET", path, nil, decoding(&count)); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		counts[events[i]] = count
		return nil
	})
	return counts, err
}
