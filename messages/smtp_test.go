package messages

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/messages/smtptest"
)

func newSMTP(t testing.TB, sink *smtptest.Sink, change func(*SMTPConfig)) *SMTP {
	t.Helper()
	config := SMTPConfig{Logger: slog.New(slog.DiscardHandler), URL: sink.URL(), RootCAs: sink.Roots(), Timeout: 5 * time.Second, Pause: 20 * time.Millisecond}
	if change != nil {
		change(&config)
	}
	courier, err := NewSMTP(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(courier.Close)
	return courier
}

func TestSMTP_DeliversWhatWasRendered(t *testing.T) {
	for name, options := range map[string]smtptest.Options{
		"plain":    {},
		"password": {User: "ann", Password: "s3cret:/@"},
		"STARTTLS": {User: "ann", Password: "s3cret", StartTLS: true},
		"TLS":      {User: "ann", Password: "s3cret", Implicit: true},
	} {
		t.Run(name, func(t *testing.T) {
			sink := smtptest.Start(t, options)
			courier := newSMTP(t, sink, nil)
			var want []*evently.Message
			for _, mail := range mails(t) {
				want = append(want, render(t, mail))
			}
			for _, message := range want {
				if err := courier.Deliver(t.Context(), message); err != nil {
					t.Fatal(err)
				}
			}
			got := sink.Messages()
			if len(got) != len(want) {
				t.Fatalf("%d messages arrived of %d", len(got), len(want))
			}
			for i, message := range want {
				compare(t, got[i], message)
			}
			if n := sink.Connections(); n != 1 {
				t.Errorf("%d connections for mails one after another, want 1", n)
			}
		})
	}
}

func compare(t *testing.T, got *smtptest.Message, want *evently.Message) {
	t.Helper()
	if got.ID != want.ID || got.Subject != want.Subject || got.Text != want.Text || got.HTML != want.HTML ||
		got.From != "tickets@tickets.example" || !cmp.Equal(got.To, []string{want.To}) {
		t.Errorf("%s arrived as\n%s", want.Kind, got.Raw)
	}
	if date, err := got.Header.Date(); err != nil || !date.Equal(want.At.Truncate(time.Second)) {
		t.Errorf("%s: date %v %v, want %s", want.Kind, date, err, want.At)
	}
	if len(got.Attachments) != len(want.Attachments) {
		t.Errorf("%s: %d attachments, want %d", want.Kind, len(got.Attachments), len(want.Attachments))
		return
	}
	for i, file := range want.Attachments {
		if a := got.Attachments[i]; a.Name != file.Name || string(a.Content) != string(file.Content) ||
			!strings.HasPrefix(a.MediaType, file.MediaType) {
			t.Errorf("%s: attachment %q %q:\n%s", want.Kind, a.Name, a.MediaType, a.Content)
		}
	}
}

func TestSMTP_TellsForGoodFromForNow(t *testing.T) {
	message := render(t, mails(t)[evently.BookingConfirmedMail])
	recipient := func(err error) smtptest.Behaviour {
		return smtptest.Behaviour{Recipient: func(context.Context, string) error { return err }}
	}
	data := func(err error) smtptest.Behaviour {
		return smtptest.Behaviour{Data: func(context.Context, *smtptest.Message) error { return err }}
	}
	for name, c := range map[string]struct {
		behaviour smtptest.Behaviour
		refused   bool
	}{
		"unknown recipient": {recipient(smtptest.Reply(550, "no such user")), true},
		"greylisted":        {recipient(smtptest.Reply(450, "come again")), false},
		"content refused":   {data(smtptest.Reply(554, "looks like spam")), true},
		"disk full":         {data(smtptest.Reply(452, "no room")), false},
		"dropped in DATA":   {data(smtptest.ErrDrop), false},
		"not served": {smtptest.Behaviour{Connect: func(context.Context) error {
			return smtptest.Reply(554, "go away")
		}}, false},
		"dropped at once": {smtptest.Behaviour{Connect: func(context.Context) error { return smtptest.ErrDrop }}, false},
	} {
		t.Run(name, func(t *testing.T) {
			sink := smtptest.Start(t, smtptest.Options{})
			registry := prometheus.NewRegistry()
			courier := newSMTP(t, sink, func(c *SMTPConfig) { c.Metrics = NewMailMetrics(registry) })
			sink.Behave(c.behaviour)
			err := courier.Deliver(t.Context(), message)
			if err == nil || errors.Is(err, evently.ErrMailRefused) != c.refused || errors.Is(err, evently.ErrMailPaused) {
				t.Errorf("got %v, want refused: %v", err, c.refused)
			}
			outcome := map[bool]string{true: "refused", false: "failed"}[c.refused]
			if n := testutil.ToFloat64(courier.config.Metrics.mails.WithLabelValues("booking_confirmed", outcome)); n != 1 {
				t.Errorf("%v counted as %s", n, outcome)
			}
			if len(sink.Messages()) != 0 {
				t.Errorf("kept %d messages", len(sink.Messages()))
			}
			sink.Behave(smtptest.Behaviour{})
			if err := courier.Deliver(t.Context(), message); err != nil || len(sink.Messages()) != 1 {
				t.Errorf("afterwards: %v, %d messages", err, len(sink.Messages()))
			}
		})
	}
}

// The server has kept the mail, and its answer is lost: nobody can know, so it is a failure, and the mail comes twice with one ID.
func TestSMTP_LostAnswerIsAFailure(t *testing.T) {
	sink := smtptest.Start(t, smtptest.Options{})
	courier := newSMTP(t, sink, nil)
	sink.Behave(smtptest.Behaviour{Kept: func(context.Context, *smtptest.Message) error { return smtptest.ErrDrop }})
	message := render(t, mails(t)[evently.BookingConfirmedMail])
	if err := courier.Deliver(t.Context(), message); err == nil || errors.Is(err, evently.ErrMailRefused) {
		t.Errorf("got %v", err)
	}
	sink.Behave(smtptest.Behaviour{})
	if err := courier.Deliver(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	if got := sink.Messages(); len(got) != 2 || got[0].ID != got[1].ID {
		t.Errorf("%d messages, want 2 with one ID", len(got))
	}
}

// A server that says nothing is given up, at each stage; and so it is at once when the caller ends.
func TestSMTP_SilenceHasAnEnd(t *testing.T) {
	message := render(t, mails(t)[evently.BookingConfirmedMail])
	hang := map[string]smtptest.Behaviour{
		"greeting":  {Connect: smtptest.Hang},
		"recipient": {Recipient: func(ctx context.Context, _ string) error { return smtptest.Hang(ctx) }},
		"data":      {Data: func(ctx context.Context, _ *smtptest.Message) error { return smtptest.Hang(ctx) }},
	}
	for stage, behaviour := range hang {
		t.Run("timeout at "+stage, func(t *testing.T) {
			sink := smtptest.Start(t, smtptest.Options{})
			sink.Behave(behaviour)
			courier := newSMTP(t, sink, func(c *SMTPConfig) { c.Timeout = 200 * time.Millisecond })
			if err := courier.Deliver(t.Context(), message); err == nil || errors.Is(err, evently.ErrMailRefused) {
				t.Errorf("got %v", err)
			}
		})
		t.Run("cancelled at "+stage, func(t *testing.T) {
			sink := smtptest.Start(t, smtptest.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end := func() error {
				cancel()
				return nil
			}
			sink.Behave(map[string]smtptest.Behaviour{
				"greeting":  {Connect: func(ctx context.Context) error { return errors.Join(end(), smtptest.Hang(ctx)) }},
				"recipient": {Recipient: func(ctx context.Context, _ string) error { return errors.Join(end(), smtptest.Hang(ctx)) }},
				"data":      {Data: func(ctx context.Context, _ *smtptest.Message) error { return errors.Join(end(), smtptest.Hang(ctx)) }},
			}[stage])
			courier := newSMTP(t, sink, func(c *SMTPConfig) { c.Timeout = time.Hour })
			if err := courier.Deliver(ctx, message); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
	}
}

// A connection that the server has closed in the meantime costs no mail.
func TestSMTP_ConnectsAgainAfterTheServerWasRestarted(t *testing.T) {
	sink := smtptest.Start(t, smtptest.Options{StartTLS: true})
	courier := newSMTP(t, sink, nil)
	message := render(t, mails(t)[evently.HoldMadeMail])
	for range 3 {
		if err := courier.Deliver(t.Context(), message); err != nil {
			t.Fatal(err)
		}
		sink.Stop()
		sink.Restart(t)
	}
	if n := len(sink.Messages()); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

// After five failures nothing is tried for a while; then one mail tries, and if it arrives, all do.
func TestSMTP_ADeadServerIsLeftAlone(t *testing.T) {
	sink := smtptest.Start(t, smtptest.Options{})
	registry := prometheus.NewRegistry()
	courier := newSMTP(t, sink, func(c *SMTPConfig) { c.Metrics = NewMailMetrics(registry) })
	sink.Behave(smtptest.Behaviour{Connect: func(context.Context) error { return smtptest.Reply(421, "not now") }})
	message := render(t, mails(t)[evently.HoldMadeMail])
	paused := 0
	for range 50 {
		err := courier.Deliver(t.Context(), message)
		if err == nil || errors.Is(err, evently.ErrMailRefused) {
			t.Fatalf("got %v", err)
		}
		if errors.Is(err, evently.ErrMailPaused) {
			paused++
		}
	}
	if n := sink.Connections(); paused+n < 50 || n < smtpFailuresMax || n > 2*smtpFailuresMax {
		t.Errorf("%d tries and %d pauses", n, paused)
	}
	if open := testutil.ToFloat64(courier.config.Metrics.breaker); open == 0 {
		t.Error("the metric does not tell of it")
	}
	sink.Behave(smtptest.Behaviour{})
	deadline, ticks := time.Now().Add(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer ticks.Stop()
	for courier.Deliver(t.Context(), message) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the server works again, and nothing is sent")
		}
		<-ticks.C
	}
	if open := testutil.ToFloat64(courier.config.Metrics.breaker); open != 0 || len(sink.Messages()) != 1 {
		t.Errorf("circuit at %v, %d messages", open, len(sink.Messages()))
	}
}

// Mails that are refused, or put off at their recipients, say nothing about the server.
func TestSMTP_RefusedMailsDoNotOpenTheCircuit(t *testing.T) {
	for _, code := range []int{550, 450} {
		sink := smtptest.Start(t, smtptest.Options{})
		courier := newSMTP(t, sink, nil)
		sink.Behave(smtptest.Behaviour{Recipient: func(_ context.Context, to string) error {
			if to == "gone@example.org" {
				return smtptest.Reply(code, "not here")
			}
			return nil
		}})
		message := render(t, mails(t)[evently.HoldMadeMail])
		message.To = "gone@example.org"
		for range 3 * smtpFailuresMax {
			if err := courier.Deliver(t.Context(), message); err == nil || errors.Is(err, evently.ErrMailPaused) {
				t.Fatalf("%d: got %v", code, err)
			}
		}
		message.To = "ann@example.org"
		if err := courier.Deliver(t.Context(), message); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
}

func TestSMTP_BoundsItsConnections(t *testing.T) {
	sink := smtptest.Start(t, smtptest.Options{})
	courier := newSMTP(t, sink, nil)
	arrived, release := make(chan struct{}, 20), make(chan struct{})
	sink.Behave(smtptest.Behaviour{Data: func(context.Context, *smtptest.Message) error {
		arrived <- struct{}{}
		<-release
		return nil
	}})
	message := render(t, mails(t)[evently.HoldMadeMail])
	const mailsAtOnce = 3 * smtpConnsMax
	results := make(chan error, mailsAtOnce)
	for range mailsAtOnce {
		go func() { results <- courier.Deliver(t.Context(), message) }()
	}
	for range smtpConnsMax {
		<-arrived
	}
	close(release)
	for range mailsAtOnce {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := sink.Connections(); n != smtpConnsMax {
		t.Errorf("%d connections, want %d", n, smtpConnsMax)
	}
}

// Neither a server that offers no TLS nor one with a certificate of somebody else gets the password.
func TestSMTP_PasswordGoesOnlyToTheServer(t *testing.T) {
	message := render(t, mails(t)[evently.HoldMadeMail])
	secure := smtptest.Start(t, smtptest.Options{User: "ann", Password: "s3cret", StartTLS: true})
	stranger := newSMTP(t, secure, func(c *SMTPConfig) { c.RootCAs = nil })
	err := stranger.Deliver(t.Context(), message)
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("unknown authority: got %v", err)
	}
	open := smtptest.Start(t, smtptest.Options{User: "ann", Password: "s3cret"})
	strict := newSMTP(t, open, func(c *SMTPConfig) { c.URL += "?tls=required" })
	if err := strict.Deliver(t.Context(), message); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("no TLS: got %v", err)
	}
	wrong := newSMTP(t, secure, func(c *SMTPConfig) { c.URL = strings.Replace(c.URL, "s3cret", "s3kret", 1) })
	err = wrong.Deliver(t.Context(), message)
	if err == nil || errors.Is(err, evently.ErrMailRefused) || strings.Contains(err.Error(), "s3kret") {
		t.Errorf("wrong password: got %v", err)
	}
	if n := len(secure.Messages()) + len(open.Messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestParseSMTPURL(t *testing.T) {
	for text, want := range map[string]SMTPServer{
		"smtp://mail.example":                         {Host: "mail.example", Port: 587, StartTLS: true},
		"smtp://ann:p%40ss@mail.example:2525/":        {Host: "mail.example", Port: 2525, User: "ann", Password: "p@ss", StartTLS: true},
		"smtp://mail.example:25?tls=off":              {Host: "mail.example", Port: 25},
		"smtp://ann:pass@mail.example?tls=required":   {Host: "mail.example", Port: 587, User: "ann", Password: "pass", StartTLS: true},
		"smtps://ann:pass@mail.example":               {Host: "mail.example", Port: 465, User: "ann", Password: "pass", Implicit: true},
		"smtp://localhost:1025":                       {Host: "localhost", Port: 1025},
		"smtp://ann:pass@[::1]:1025":                  {Host: "::1", Port: 1025, User: "ann", Password: "pass"},
		"smtp://127.0.0.1:1025?tls=required":          {Host: "127.0.0.1", Port: 1025, StartTLS: true},
		"smtps://127.0.0.1:1465?tls=required":         {Host: "127.0.0.1", Port: 1465, Implicit: true},
		"smtp://user%40example.org:x@relay.example:1": {Host: "relay.example", Port: 1, User: "user@example.org", Password: "x", StartTLS: true},
	} {
		if got, err := ParseSMTPURL(text); err != nil || *got != want {
			t.Errorf("%s: got %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "mail.example:25", "http://mail.example", "smtp://", "smtp://:25", "smtp://mail.example/inbox", "smtp://mail.example:0",
		"smtp://mail.example:65536", "smtp://mail.example?tls=maybe", "smtp://mail.example?starttls=off", "smtps://mail.example?tls=off",
		"smtp://ann:s3cret@mail.example?tls=off", "smtp://ann:s3cret%zz@mail.example",
	} {
		if got, err := ParseSMTPURL(text); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %+v %v", text, got, err)
		}
	}
}

// A port where nobody listens is a failure like any other.
func TestSMTP_NobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	courier, err := NewSMTP(SMTPConfig{URL: fmt.Sprint("smtp://", address)})
	if err != nil {
		t.Fatal(err)
	}
	if err := courier.Deliver(t.Context(), render(t, mails(t)[evently.HoldMadeMail])); err == nil {
		t.Error("delivered to nobody")
	}
}
