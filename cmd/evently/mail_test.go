package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/messages/smtptest"
	"github.com/evently/evently/store/pgtest"
)

// mailMax bounds the wait for a mail.
const mailMax = 30 * time.Second

// devMail is a mail in the mailbox of developers.
type devMail struct {
	ID, To, From, Subject, Text, HTML, Kind string
	Attachments                             []struct {
		Name      string
		MediaType string `json:"media_type"`
		Content   []byte
	}
	At time.Time
}

// mailbox reads the mails to an address from a node.
func mailbox(ctx context.Context, n *proctest.Server, to string) (status int, mails []devMail, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Operations+"/dev/mailbox?to="+url.QueryEscape(to), nil)
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return response.StatusCode, nil, err
	}
	var list struct{ Data []devMail }
	return response.StatusCode, list.Data, json.Unmarshal(body, &list)
}

// reader waits for the mails to one address, in turn.
type reader struct {
	*testing.T
	node *proctest.Server
	to   string
	read map[string]bool
}

func newReader(t *testing.T, n *proctest.Node, to string) *reader {
	return &reader{t, &n.Server, to, make(map[string]bool)}
}

// next waits for one mail more, of a kind.
func (r *reader) next(kind string) (next devMail) {
	r.Helper()
	proctest.Eventually(r.T, mailMax, func() error {
		_, mails, err := mailbox(r.Context(), r.node, r.to)
		if err != nil {
			return err
		}
		var unread []devMail
		for _, mail := range mails {
			if !r.read[mail.ID] {
				unread = append(unread, mail)
			}
		}
		if len(unread) != 1 || unread[0].Kind != kind {
			return fmt.Errorf("%s has %d unread mails, not one of kind %s: %+v", r.to, len(unread), kind, unread)
		}
		next = unread[0]
		return nil
	})
	r.read[next.ID] = true
	if next.To != r.to || next.Subject == "" || next.Text == "" || !strings.Contains(next.HTML, "<html") || next.At.IsZero() {
		r.Errorf("mail %+v", next)
	}
	return next
}

// code is the one-time code in a mail.
func (m devMail) code() string {
	for line := range strings.SplitSeq(m.Text, "\n") {
		if line = strings.TrimSpace(line); len(line) == 6 && strings.Trim(line, "0123456789") == "" {
			return line
		}
	}
	return ""
}

// customer registers a user and signs in.
func customer(t *testing.T, n *proctest.Node, name string) (*proctest.Client, *reader) {
	t.Helper()
	email := name + "@example.com"
	r := newReader(t, n, email)
	anybody := n.Client(t, "")
	anybody.Must(t, 201, "POST", "/register", "", fmt.Sprintf(`{"email":%q,"password":"a-long-enough-password","name":"Ann Bee"}`, email))
	code := r.next("verify_email").code()
	anybody.Must(t, 200, "POST", "/verify", "", fmt.Sprintf(`{"email":%q,"code":%q}`, email, code))
	answer := anybody.Must(t, 200, "POST", "/login", "", fmt.Sprintf(`{"email":%q,"password":"a-long-enough-password"}`, email))
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(answer.Body, &tokens); err != nil {
		t.Fatal(err)
	}
	return n.Client(t, tokens.AccessToken), r
}

func TestMail_CodesComeByMail(t *testing.T) {
	t.Parallel()
	n := proctest.Up(t, proctest.DataDir(t))
	if want := n.Operations + "/dev/mailbox\n"; !strings.Contains(n.Output(), want) {
		t.Errorf("up does not show %s", want)
	}
	_, ann := customer(t, n, "ann")
	anybody := n.Client(t, "")
	anybody.Must(t, 202, "POST", "/password/forgot", "", `{"email":"ann@example.com"}`)
	code := ann.next("reset_password").code()
	anybody.Must(t, 204, "POST", "/password/reset", "",
		fmt.Sprintf(`{"email":"ann@example.com","code":%q,"new_password":"another-long-password"}`, code))
	anybody.Must(t, 200, "POST", "/login", "", `{"email":"ann@example.com","password":"another-long-password"}`)
	if strings.Contains(n.Output(), code) {
		t.Error("the log shows a code")
	}
	if status, _, err := mailbox(t.Context(), &n.Server, ""); err != nil || status != http.StatusOK {
		t.Errorf("all mails: status %d, %v", status, err)
	}
}

func TestMail_TellsWhatHappensToBookings(t *testing.T) {
	t.Parallel()
	n := proctest.Up(t, proctest.DataDir(t))
	admin := n.Client(t, n.Login(t))
	ann, annMail := customer(t, n, "ann")
	event := n.CreateEvent(t, 10, time.Hour)

	first := ann.Must(t, 201, "POST", event+"/book", "1", `{"quantity":2}`).Seats(t)
	if mail := annMail.next("hold_made"); !strings.Contains(mail.Text, "Final") || !strings.Contains(mail.Text, "EUR 20.00") ||
		!strings.Contains(mail.Text, "Europe/Vienna") || len(mail.Attachments) != 0 {
		t.Errorf("mail of the hold: %s", mail.Text)
	}
	ann.Must(t, 200, "POST", "/reservations/"+first.ID+"/confirm", "", "")
	confirmed := annMail.next("booking_confirmed")
	wantCalendar(t, confirmed, first.ID, "METHOD:PUBLISH", "STATUS:CONFIRMED")

	second := ann.Must(t, 201, "POST", event+"/book", "2", `{"quantity":1}`).Seats(t)
	annMail.next("hold_made")
	ann.Must(t, 200, "POST", "/reservations/"+second.ID+"/confirm", "", "")
	annMail.next("booking_confirmed")
	ann.Must(t, 200, "POST", "/bookings/"+second.ID+"/cancel", "", "")
	wantCalendar(t, annMail.next("booking_cancelled"), second.ID, "METHOD:CANCEL", "STATUS:CANCELLED")

	// Another venue is told to the holders of what is left.
	body := strings.Replace(proctest.EventBody("Final", 10, time.Hour), `"capacity"`, `"venue":"Arena","city":"Graz","capacity"`, 1)
	admin.Must(t, 200, "PUT", "/admin"+event, "", body, "If-Match", `"1"`)
	changed := annMail.next("event_changed")
	wantCalendar(t, changed, first.ID, "METHOD:PUBLISH", "STATUS:CONFIRMED")
	if !strings.Contains(changed.Text, "Venue: Arena") || sequence(t, changed) <= sequence(t, confirmed) {
		t.Errorf("mail of the change: %s", changed.Text)
	}

	admin.Must(t, 200, "POST", "/admin"+event+"/cancel", "", "")
	cancelled := annMail.next("event_cancelled")
	wantCalendar(t, cancelled, first.ID, "METHOD:CANCEL", "STATUS:CANCELLED")
	if sequence(t, cancelled) <= sequence(t, changed) {
		t.Error("the cancellation does not replace the change")
	}
	if _, mails, err := mailbox(t.Context(), &n.Server, "ann@example.com"); err != nil || len(mails) != len(annMail.read) {
		t.Errorf("%d mails, want %d (%v)", len(mails), len(annMail.read), err)
	}
}

func TestMail_TellsWhatHappensOnAWaitlist(t *testing.T) {
	t.Parallel()
	n := proctest.Up(t, proctest.DataDir(t))
	admin := n.Client(t, n.Login(t))
	event := n.CreateEvent(t, 1, time.Hour)
	ann, annMail := customer(t, n, "ann")
	ben, benMail := customer(t, n, "ben")
	carl, carlMail := customer(t, n, "carl")
	dora, doraMail := customer(t, n, "dora")

	booked := ann.Must(t, 201, "POST", event+"/book", "1", `{"quantity":1}`).Seats(t)
	annMail.next("hold_made")
	ben.Must(t, 201, "POST", event+"/waitlist", "1", `{"quantity":1}`)
	if mail := benMail.next("waitlist_joined"); !strings.Contains(mail.Text, "position 1") {
		t.Errorf("mail of the first: %s", mail.Text)
	}
	carl.Must(t, 201, "POST", event+"/waitlist", "1", `{"quantity":1,"on_release":"hold"}`)
	if mail := carlMail.next("waitlist_joined"); !strings.Contains(mail.Text, "position 2") {
		t.Errorf("mail of the second: %s", mail.Text)
	}
	dora.Must(t, 201, "POST", event+"/waitlist", "1", `{"quantity":1}`)
	doraMail.next("waitlist_joined")

	ann.Must(t, 204, "DELETE", "/reservations/"+booked.ID, "", "")
	served := benMail.next("waitlist_booked")
	if len(served.Attachments) != 1 {
		t.Errorf("%d attachments", len(served.Attachments))
	}
	var bookings struct{ Data []struct{ ID string } }
	if err := json.Unmarshal(ben.Must(t, 200, "GET", "/bookings", "", "").Body, &bookings); err != nil || len(bookings.Data) != 1 {
		t.Fatalf("bookings %+v %v", bookings, err)
	}
	ben.Must(t, 200, "POST", "/bookings/"+bookings.Data[0].ID+"/cancel", "", "")
	benMail.next("booking_cancelled")
	carlMail.next("waitlist_offer")
	admin.Must(t, 200, "POST", "/admin"+event+"/cancel", "", "")
	doraMail.next("waitlist_closed")
}

func wantCalendar(t *testing.T, mail devMail, reservation string, lines ...string) {
	t.Helper()
	if len(mail.Attachments) != 1 || !strings.HasPrefix(mail.Attachments[0].MediaType, "text/calendar") {
		t.Fatalf("%s has the attachments %+v", mail.Kind, mail.Attachments)
	}
	for _, line := range append(lines, "UID:"+reservation+"@evently", "SUMMARY:Final") {
		if !strings.Contains(string(mail.Attachments[0].Content), "\r\n"+line+"\r\n") {
			t.Errorf("%s: no %s in\n%s", mail.Kind, line, mail.Attachments[0].Content)
		}
	}
}

// sequence is the number that orders the calendars of one booking.
func sequence(t *testing.T, mail devMail) (n int) {
	t.Helper()
	_, rest, _ := strings.Cut(string(mail.Attachments[0].Content), "\r\nSEQUENCE:")
	if _, err := fmt.Sscanf(rest, "%d\r\n", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// hurry makes jobs due that would be tried again later, and gives those of a dead node to others.
func hurry(t *testing.T, dsn string) {
	t.Helper()
	pool := opened(t, dsn)
	if _, err := pool.Exec(t.Context(), `update river_job set state = 'available', scheduled_at = now()
		where queue = 'mail' and state in ('retryable', 'scheduled', 'running')`); err != nil {
		t.Fatal(err)
	}
}

// confirmationsOf waits until the server has confirmations for all reservations, and returns how often each mail came.
func confirmationsOf(t *testing.T, sink *smtptest.Sink, dsn string, reservations []string) (ids map[string]int) {
	t.Helper()
	last := time.Now()
	proctest.Eventually(t, 2*time.Minute, func() error {
		ids = make(map[string]int)
		missing := slices.Clone(reservations)
		for _, message := range sink.Messages() {
			ids[message.ID]++
			missing = slices.DeleteFunc(missing, func(id string) bool {
				return strings.HasPrefix(message.Subject, "Booked:") && strings.Contains(message.Text, id)
			})
		}
		if len(missing) == 0 {
			return nil
		}
		if time.Since(last) > 2*time.Second { // after the pause of the circuit one mail tries, and then the others
			hurry(t, dsn)
			last = time.Now()
		}
		return fmt.Errorf("%d of %d bookings are not told", len(missing), len(reservations))
	})
	return ids
}

// A mail server that hangs, drops connections and is away altogether: bookings neither fail nor wait, and all is told in the end.
func TestMail_DeadServerHoldsUpNoBooking(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	sink := smtptest.Start(t, smtptest.Options{User: "evently", Password: "s3cret"})
	n := proctest.Up(t, proctest.DataDir(t), "--database-url="+dsn, "--rate-limit-book=off", "--rate-limit-auth=off",
		"--smtp-url="+sink.URL(), "--mail-from=Evently <tickets@tickets.example>", "--public-url=https://tickets.example")
	if status, _, err := mailbox(t.Context(), &n.Server, ""); err != nil || status != http.StatusNotFound {
		t.Errorf("mailbox beside a mail server: status %d, %v; want 404", status, err)
	}
	ann := n.Client(t, n.Users(t, 1)[0])
	event := n.CreateEvent(t, 1000, time.Hour)
	const each = 8
	var reservations []string
	var slowest time.Duration
	for i, fault := range []func(){
		func() { sink.Behave(smtptest.Behaviour{Connect: smtptest.Hang}) },
		func() {
			sink.Behave(smtptest.Behaviour{Data: func(context.Context, *smtptest.Message) error { return smtptest.ErrDrop }})
		},
		sink.Stop,
	} {
		fault()
		for j := range each {
			began := time.Now()
			held := ann.Must(t, 201, "POST", event+"/book", fmt.Sprintf("%d-%d", i, j), `{"quantity":1}`).Seats(t)
			ann.Must(t, 200, "POST", "/reservations/"+held.ID+"/confirm", "", "")
			slowest = max(slowest, time.Since(began))
			reservations = append(reservations, held.ID)
		}
	}
	if slowest > 5*time.Second { // far below any timeout of mail, and far above what a busy machine needs
		t.Errorf("a booking took %s", slowest)
	}
	sink.Behave(smtptest.Behaviour{})
	sink.Restart(t)
	ids := confirmationsOf(t, sink, dsn, reservations)
	for _, message := range sink.Messages() {
		if message.From != "tickets@tickets.example" || !strings.Contains(message.Text, "https://tickets.example") {
			t.Errorf("message\n%s", message.Raw)
		}
	}
	t.Logf("slowest booking %s, %d mails", slowest, len(ids))
	if strings.Contains(n.Output(), "s3cret") {
		t.Error("the log shows the password of the mail server")
	}
}

// The node is killed when the mail server has taken a mail and not said so: another one sends it again, under the same id.
func TestMail_KilledNodeRepeatsUnderTheSameID(t *testing.T) {
	t.Parallel()
	dsn, dir := pgtest.Database(t), proctest.DataDir(t)
	sink := smtptest.Start(t, smtptest.Options{})
	args := []string{"--database-url=" + dsn, "--rate-limit-book=off", "--smtp-url=" + sink.URL(), "--mail-from=tickets@tickets.example"}
	n := proctest.Up(t, dir, args...)
	ann := n.Client(t, n.Users(t, 1)[0])
	event := n.CreateEvent(t, 100, time.Hour)
	taken := make(chan string, 100)
	sink.Behave(smtptest.Behaviour{Kept: func(ctx context.Context, message *smtptest.Message) error {
		taken <- message.ID
		return smtptest.Hang(ctx)
	}})
	var reservations []string
	for i := range 3 {
		held := ann.Must(t, 201, "POST", event+"/book", fmt.Sprint(i), `{"quantity":1}`).Seats(t)
		ann.Must(t, 200, "POST", "/reservations/"+held.ID+"/confirm", "", "")
		reservations = append(reservations, held.ID)
	}
	var unanswered []string
	for range reservations {
		select {
		case id := <-taken:
			unanswered = append(unanswered, id)
		case <-time.After(mailMax):
			t.Fatal("no mail came")
		}
	}
	n.Signal(t, syscall.SIGKILL)
	n.Exit(t, proctest.StopMax)
	sink.Behave(smtptest.Behaviour{})

	proctest.Up(t, dir, args...)
	hurry(t, dsn)
	proctest.Eventually(t, time.Minute, func() error {
		times := make(map[string]int)
		for _, message := range sink.Messages() {
			times[message.ID]++
		}
		for _, id := range unanswered {
			if times[id] < 2 {
				return fmt.Errorf("mail %s came %d times", id, times[id])
			}
		}
		return nil
	})
	confirmationsOf(t, sink, dsn, reservations)
}

func TestServe_RefusesWrongSettingsOfMail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"--smtp-url=smtp://mail.example", "mail_from is not set"},
		{"--smtp-url=http://mail.example --mail-from=a@b.example", "smtp_url"},
		{"--smtp-url=smtp://ann:s3cret@mail.example?tls=off --mail-from=a@b.example", "smtp_url"},
		{"--mail-from=nobody", "mail_from"},
		{"--public-url=tickets.example", "public_url"},
		{"--mail-rate=0", "mail-rate"},
	} {
		p := proctest.Launch(t, proctest.DataDir(t), append([]string{"up"}, strings.Fields(c.args)...)...)
		if exit := p.Exit(t, proctest.UpMax); exit != exitUsage {
			t.Errorf("%s: exit %d, want %d", c.args, exit, exitUsage)
		}
		if text := p.Output(); !strings.Contains(text, c.want) || strings.Contains(text, "s3cret") {
			t.Errorf("%s: output %s, want %q", c.args, text, c.want)
		}
	}
}
