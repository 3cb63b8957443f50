package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/http/apitest"
)

// sink receives messages as somebody does who knows Standard Webhooks.
type sink struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	secrets []string // each message has to be signed with all of them
	answer  func(w http.ResponseWriter, r *http.Request, m *sunk)
	got     []*sunk
	wrong   []error
}

// sunk is a message as it came.
type sunk struct {
	ID        string `json:"-"`
	At        time.Time
	Type      string
	Timestamp time.Time
	Data      struct {
		EventID       string `json:"event_id"`
		Seq           uint64
		ReservationID string `json:"reservation_id"`
		UserID        string `json:"user_id"`
		WebhookID     string `json:"webhook_id"`
	}
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{t: t}
	s.Server = httptest.NewServer(http.HandlerFunc(s.receive))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		for _, err := range s.wrong {
			t.Errorf("%s: %v", s.URL, err)
		}
	})
	return s
}

func (s *sink) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	message := &sunk{ID: r.Header.Get("webhook-id"), At: time.Now()}
	if err == nil {
		err = json.Unmarshal(body, message)
	}
	s.mu.Lock()
	for _, secret := range s.secrets {
		err = errors.Join(err, checkSignature(r.Header, body, secret))
	}
	if err != nil {
		s.wrong = append(s.wrong, err)
	}
	s.got = append(s.got, message)
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		answer(w, r, message)
	}
}

func checkSignature(header http.Header, body []byte, secret string) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return err
	}
	sent := header.Get("webhook-timestamp")
	if seconds, err := strconv.ParseInt(sent, 10, 64); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
		return fmt.Errorf("sent at %q", sent)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(header.Get("webhook-id") + "." + sent + "."))
	mac.Write(body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if !slices.Contains(strings.Split(header.Get("webhook-signature"), " "), want) {
		return fmt.Errorf("signature %q of %s", header.Get("webhook-signature"), body)
	}
	return nil
}

// now changes what the sink expects and does.
func (s *sink) now(answer func(w http.ResponseWriter, r *http.Request, m *sunk), secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.secrets = answer, secrets
}

// await waits until messages of these types and no others have come, in whatever order, and returns them.
func (s *sink) await(types ...string) []*sunk {
	s.t.Helper()
	slices.Sort(types)
	var got []*sunk
	proctest.Eventually(s.t, proctest.UpMax, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		got = slices.Clone(s.got)
		var names []string
		for _, message := range got {
			names = append(names, message.Type)
		}
		slices.Sort(names)
		if !slices.Equal(names, types) {
			return fmt.Errorf("got %q, want %q", names, types)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = nil
	return got
}

// hookOf registers a sink and returns the id and the secret of the webhook.
func hookOf(t *testing.T, c *proctest.Client, url string, types ...string) (id, secret string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"url": url, "events": types})
	if err != nil {
		t.Fatal(err)
	}
	var hook struct{ ID, Secret string }
	if err := json.Unmarshal(c.Must(t, 201, "POST", "/admin/webhooks", "", string(body)).Body, &hook); err != nil {
		t.Fatal(err)
	}
	return hook.ID, hook.Secret
}

// delivery is a line of the log.
type delivery struct {
	ID, Type, Status string
	Attempts         []struct {
		Status  *int
		Error   *string
		Excerpt *string `json:"response_excerpt"`
	}
	NextAttemptAt *time.Time `json:"next_attempt_at"`
}

func deliveries(t *testing.T, c *proctest.Client, hook string) []delivery {
	t.Helper()
	var page struct{ Data []delivery }
	if err := json.Unmarshal(c.Must(t, 200, "GET", "/admin/webhooks/"+hook+"/deliveries", "", "").Body, &page); err != nil {
		t.Fatal(err)
	}
	return page.Data
}

const allowPrivate = "--webhook-allow-private=true"

func TestWebhooks_BookingsAreToldSignedAndLogged(t *testing.T) {
	t.Parallel()
	n := proctest.Up(t, proctest.DataDir(t), allowPrivate)
	admin := n.Client(t, n.Login(t))
	tokens := n.Users(t, 2)
	var me struct {
		ID string
	}
	n.Do(t, 200, "GET", "/me", tokens[0], "", &me)
	admin.Must(t, 200, "PUT", "/admin/users/"+me.ID+"/role", "", `{"role":"organizer"}`)
	organizer, ann := n.Client(t, ""), n.Client(t, tokens[1])
	var login struct {
		AccessToken string `json:"access_token"`
	}
	n.Do(t, 200, "POST", "/login", "", `{"email":"user0@example.com","password":"a-long-enough-password"}`, &login)
	organizer.Token = login.AccessToken

	all, own := newSink(t), newSink(t)
	everything := []string{
		"event.published", "event.updated", "event.cancelled", "event.repriced", "reservation.held", "booking.confirmed", "booking.cancelled",
		"reservation.expired", "reservation.released", "waitlist.joined", "waitlist.offered", "waitlist.booked", "waitlist.left", "waitlist.closed",
	}
	allID, allSecret := hookOf(t, admin, all.URL+"/in?token=1", everything...)
	ownID, ownSecret := hookOf(t, organizer, own.URL, "booking.confirmed", "event.cancelled")
	all.now(nil, allSecret)
	own.now(nil, ownSecret)

	// An event of the administrator and one of the organizer, booked.
	theirs := n.CreateEvent(t, 10, time.Hour)
	var created struct{ ID string }
	if err := json.Unmarshal(organizer.Must(t, 201, "POST", "/admin/events", "", proctest.EventBody("Own", 1, time.Hour)).Body, &created); err != nil {
		t.Fatal(err)
	}
	book := func(path, key string) (id string) {
		t.Helper()
		id = ann.Must(t, 201, "POST", path+"/book", key, `{"quantity":1}`).Seats(t).ID
		ann.Must(t, 200, "POST", "/reservations/"+id+"/confirm", "", "")
		return id
	}
	book(theirs, "a")
	booked := book("/events/"+created.ID, "b")
	admin.Must(t, 201, "POST", "/events/"+created.ID+"/waitlist", "c", `{"quantity":1}`)
	ann.Must(t, 200, "POST", "/bookings/"+booked+"/cancel", "", "")
	messages := all.await("event.published", "event.published", "reservation.held", "booking.confirmed", "reservation.held", "booking.confirmed",
		"waitlist.joined", "booking.cancelled", "waitlist.booked", "booking.confirmed")
	ids := make(map[string]bool)
	for _, message := range messages {
		ids[message.ID] = true
		if message.Data.Seq == 0 || time.Since(message.Timestamp).Abs() > time.Minute {
			t.Errorf("%+v", message)
		}
	}
	if len(ids) != len(messages) {
		t.Errorf("ids %v", ids)
	}
	for _, message := range own.await("booking.confirmed", "booking.confirmed") {
		if message.Data.EventID != created.ID || ids[message.ID] {
			t.Errorf("the organizer is told of %+v", message)
		}
	}

	// It fails for a while.
	failures := 2
	own.now(func(w http.ResponseWriter, _ *http.Request, _ *sunk) {
		own.mu.Lock()
		defer own.mu.Unlock()
		if failures--; failures >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "not now; is it "+ownSecret+"?")
		}
	}, ownSecret)
	organizer.Must(t, 200, "POST", "/admin/events/"+created.ID+"/cancel", "", "")
	tried := own.await("event.cancelled")
	organizer.Must(t, 202, "POST", "/admin/webhooks/"+ownID+"/deliveries/"+tried[0].ID+"/redeliver", "", "")
	tried = append(tried, own.await("event.cancelled")...)
	organizer.Must(t, 202, "POST", "/admin/webhooks/"+ownID+"/deliveries/"+tried[0].ID+"/redeliver", "", "")
	tried = append(tried, own.await("event.cancelled")...)
	var last delivery
	proctest.Eventually(t, proctest.UpMax, func() error {
		if last = deliveries(t, organizer, ownID)[0]; last.Status != "delivered" {
			return errors.New(last.Status)
		}
		return nil
	})
	for _, message := range tried {
		if message.ID != last.ID {
			t.Errorf("message %s was sent as %s", last.ID, message.ID)
		}
	}
	if len(last.Attempts) != 3 || *last.Attempts[0].Status != 503 || *last.Attempts[0].Error != "status" || *last.Attempts[0].Excerpt != "not now; is it whsec_[secret]?" ||
		*last.Attempts[2].Status != 200 || last.Attempts[2].Error != nil {
		t.Errorf("the log has %+v", last)
	}
	own.now(nil, ownSecret)

	// Both secrets sign for a day.
	var rotated struct{ Secret string }
	if err := json.Unmarshal(organizer.Must(t, 200, "POST", "/admin/webhooks/"+ownID+"/rotate-secret", "", "").Body, &rotated); err != nil {
		t.Fatal(err)
	}
	own.now(nil, ownSecret, rotated.Secret)
	organizer.Must(t, 202, "POST", "/admin/webhooks/"+ownID+"/test", "", "")
	if ping := own.await("ping")[0]; rotated.Secret == ownSecret || ping.Data.WebhookID != ownID {
		t.Errorf("%+v", ping)
	}

	// 410 ends it, and its owner begins it again.
	own.now(func(w http.ResponseWriter, _ *http.Request, _ *sunk) { w.WriteHeader(http.StatusGone) })
	organizer.Must(t, 202, "POST", "/admin/webhooks/"+ownID+"/test", "", "")
	own.await("ping")
	var state struct {
		Active bool
		Reason *string `json:"disabled_reason"`
	}
	proctest.Eventually(t, proctest.UpMax, func() error {
		n.Do(t, 200, "GET", "/admin/webhooks/"+ownID, organizer.Token, "", &state)
		if state.Active || *state.Reason != "gone" {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
	organizer.Must(t, 409, "POST", "/admin/webhooks/"+ownID+"/test", "", "")
	organizer.Must(t, 200, "POST", "/admin/webhooks/"+ownID+"/enable", "", "")
	own.now(nil)
	organizer.Must(t, 202, "POST", "/admin/webhooks/"+ownID+"/test", "", "")
	own.await("ping")

	// Others see nothing of it.
	organizer.Must(t, 404, "GET", "/admin/webhooks/"+allID, "", "")
	ann.Must(t, 403, "GET", "/admin/webhooks", "", "")
	admin.Must(t, 204, "DELETE", "/admin/webhooks/"+ownID, "", "")
	if sent := n.Metric(t, "evently_webhook_attempts_total", `outcome="delivered"`); sent < 14 {
		t.Errorf("counted %v", sent)
	}
	n.Signal(t, syscall.SIGTERM)
	if exit := n.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
	for _, secret := range []string{allSecret, ownSecret, rotated.Secret, "token=1"} {
		if strings.Contains(n.Output(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

// Killed when a message has arrived and its outcome is not recorded: it comes again, under the same id, and so does everything
// that was not sent.
func TestWebhooks_KilledBetweenSendAndRecord(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, allowPrivate)
	admin := n.Client(t, n.Login(t))
	s := newSink(t)
	_, secret := hookOf(t, admin, s.URL, "reservation.held")
	arrived := make(chan string, 100)
	s.now(func(_ http.ResponseWriter, r *http.Request, m *sunk) {
		arrived <- m.ID
		<-r.Context().Done()
	}, secret)
	path := n.CreateEvent(t, 100, time.Hour)
	const bookings = 6
	for i := range bookings {
		admin.Must(t, 201, "POST", path+"/book", fmt.Sprint(i), `{"quantity":1}`)
	}
	first := <-arrived
	n.Signal(t, syscall.SIGKILL)
	n.Exit(t, proctest.StopMax)
	claimsRunOut(t, dir)

	s.now(nil, secret)
	s.mu.Lock()
	s.got = nil
	s.mu.Unlock()
	again := proctest.Up(t, dir, allowPrivate)
	ids := make(map[string]bool)
	for _, message := range s.await(slices.Repeat([]string{"reservation.held"}, bookings)...) {
		ids[message.ID] = true
	}
	if len(ids) != bookings || !ids[first] {
		t.Errorf("received %v after %s", ids, first)
	}
	again.Signal(t, syscall.SIGTERM)
	again.Exit(t, proctest.StopMax)
}

// claimsRunOut makes due what a dead node had claimed, as half a minute does.
func claimsRunOut(t *testing.T, dir string) {
	t.Helper()
	database := proctest.Launch(t, dir, "database", "up", "--log-level=warn")
	conn, err := pgx.Connect(t.Context(), database.Await(t, `^(postgres://\S+)$`)[1])
	if err != nil {
		t.Fatal(err)
	}
	// All of them: that of a message under way may have run out.
	tag, err := conn.Exec(t.Context(), `update webhook_deliveries set due_at = least(due_at, now()) where due_at is not null`)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil || tag.RowsAffected() == 0 {
		t.Errorf("%d deliveries (%v), want those that were not recorded", tag.RowsAffected(), err)
	}
	database.Signal(t, syscall.SIGTERM)
	if exit := database.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
}

// One sink hangs, another one is not there: bookings and the third one do not notice.
func TestWebhooks_DeadSinksSlowNobody(t *testing.T) {
	t.Parallel()
	n := proctest.Up(t, proctest.DataDir(t), allowPrivate, "--rate-limit-book=off")
	admin := n.Client(t, n.Login(t))
	hung, well := newSink(t), newSink(t)
	hung.now(func(_ http.ResponseWriter, r *http.Request, _ *sunk) { <-r.Context().Done() })
	absent := httptest.NewServer(nil)
	absent.Close()
	for range 5 {
		hookOf(t, admin, hung.URL, "reservation.held")
		hookOf(t, admin, absent.URL, "reservation.held")
	}
	event := func(key string) (path string) {
		return "/events/" + admin.Must(t, 201, "POST", "/admin/events", key, proctest.EventBody("Final", 10_000, time.Hour)).Seats(t).ID
	}
	path := event("first")
	booker := &proctest.Client{HTTP: proctest.Plain(t), API: n.API, Token: admin.Token}
	const bookings = 300
	book := func(round string) time.Duration {
		began := time.Now()
		for i := range bookings {
			booker.Must(t, 201, "POST", path+"/book", round+strconv.Itoa(i), `{"quantity":1}`)
		}
		return time.Since(began)
	}
	book("warm")
	hookOf(t, admin, well.URL, "reservation.held")
	path = event("second")
	took := book("told")
	ended := time.Now()
	proctest.Eventually(t, proctest.UpMax, func() error {
		well.mu.Lock()
		defer well.mu.Unlock()
		told := make(map[string]bool)
		for _, message := range well.got {
			if late := message.At.Sub(message.Timestamp); late > 10*time.Second {
				t.Fatalf("a message came after %s", late)
			}
			if strings.HasSuffix(path, message.Data.EventID) { // others are of the moment before
				told[message.ID] = true
			}
		}
		if len(told) != bookings {
			return fmt.Errorf("told of %d of %d bookings", len(told), bookings)
		}
		return nil
	})
	t.Logf("%d bookings in %s, told %s later", bookings, took, time.Since(ended))
	if took > 30*time.Second {
		t.Errorf("%d bookings took %s", bookings, took)
	}
	n.Signal(t, syscall.SIGTERM)
	if exit := n.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
}

func TestWebhooks_PrivateTargetsAreRefused(t *testing.T) {
	t.Parallel()
	n := proctest.Up(t, proctest.DataDir(t))
	admin := n.Client(t, n.Login(t))
	s := newSink(t)
	wrong := apitest.Wrong(t.Context())
	for _, url := range []string{
		s.URL, strings.Replace(s.URL, "http:", "https:", 1), "https://localhost/", "https://127.0.0.1/", "https://[::1]/", "https://0.0.0.0/",
		"https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/",
		"https://100.64.0.1/", "https://224.0.0.1/", "file:///etc/passwd", "https://user:pass@8.8.8.8/", "https://8.8.8.8/#x", "https://8.8.8.8:0/",
	} {
		got, err := admin.Send(wrong, "POST", "/admin/webhooks", "", fmt.Sprintf(`{"url":%q,"events":["event.published"]}`, url))
		if err != nil || got.Status != 400 || !strings.Contains(string(got.Body), `"field":"url"`) {
			t.Errorf("%s: %d %s (%v)", url, got.Status, got.Body, err)
		}
	}
	id, _ := hookOf(t, admin, "https://8.8.8.8/", "event.published")
	got, err := admin.Send(wrong, "PUT", "/admin/webhooks/"+id, "", `{"url":"https://127.0.0.1/","events":["event.published"]}`)
	if err != nil || got.Status != 400 {
		t.Errorf("changed to a private address: %d %s (%v)", got.Status, got.Body, err)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
}
