package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/evently/evently"
)

// post is a Mailer that keeps what it sends.
type post struct {
	mu   sync.Mutex
	sent []*evently.Mail
	// before, unless nil, decides whether a mail is sent, and after what is said of it then.
	before, after func(ctx context.Context, mail *evently.Mail) error
}

func (p *post) Send(ctx context.Context, mail *evently.Mail) error {
	p.mu.Lock()
	before, after := p.before, p.after
	p.mu.Unlock()
	if before != nil {
		if err := before(ctx, mail); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.sent = append(p.sent, mail)
	p.mu.Unlock()
	if after != nil {
		return after(ctx, mail)
	}
	return nil
}

func (p *post) behave(before, after func(context.Context, *evently.Mail) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.after = before, after
}

// mails are those that were sent, in their order.
func (p *post) mails() []*evently.Mail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// told is the mails as kind and reader, sorted.
func (p *post) told() []string {
	var list []string
	for _, mail := range p.mails() {
		list = append(list, mail.Kind.String()+" "+mail.To)
	}
	slices.Sort(list)
	return list
}

// office is a bench with mail.
type office struct {
	*bench
	post *post
	mail *Mail
	jobs *Jobs
}

func newOffice(t *testing.T, change func(*MailConfig)) *office {
	t.Helper()
	o := &office{bench: newBench(t, JournalConfig{}), post: new(post)}
	config := MailConfig{Mailer: o.post, Secrets: [][]byte{[]byte("the secret")}, PerSecond: 1e6, Pause: time.Millisecond, Logger: discard}
	if change != nil {
		change(&config)
	}
	var err error
	if o.mail, err = NewMail(config); err != nil {
		t.Fatal(err)
	}
	o.jobs = jobsOf(t, o.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){o.mail.Work}})
	for user := range 10 {
		o.exec(`insert into users (user_id, email, name, role, password_hash, email_verified, created_at)
			values ($1, $2, 'Ann', 0, '', false, now())`, user, fmt.Sprint("u", user))
	}
	reader := readerOf(o.pool, o.mail.Consumer(o.jobs))
	if err := reader.enroll(t.Context()); err != nil { // so that the test's entries are all told
		t.Fatal(err)
	}
	return o
}

// follow consumes the journal once to its end.
func (o *office) follow() {
	o.Helper()
	_, stop := o.feeding(o.pool, o.mail.Consumer(o.jobs))
	o.waitUntil("the journal is consumed", func() bool {
		return o.count(`select count(*) from event_heads h where seq > coalesce((select c.seq from feed_cursors c
			where c.consumer = 'mail' and c.event_id = h.event_id), 0)`) == 0
	})
	stop()
}

// forgo leaves out what has happened so far, as it was before mail began.
func (o *office) forgo() {
	o.Helper()
	o.exec(`insert into feed_cursors (consumer, event_id, seq) select 'mail', event_id, seq from event_heads
		on conflict (consumer, event_id) do update set seq = excluded.seq`)
}

// hurry makes jobs due that would be tried again later.
func (o *office) hurry() {
	o.Helper()
	o.exec(`update river_job set state = 'available', scheduled_at = now() where state in ('retryable', 'scheduled')`)
}

// settled waits until no job is left to do.
func (o *office) settled() {
	o.Helper()
	o.waitUntil("all jobs are done", func() bool {
		o.hurry()
		return o.count(`select count(*) from river_job where finalized_at is null and queue = 'mail'`) == 0
	})
}

func (o *office) want(want ...string) {
	o.Helper()
	o.settled()
	slices.Sort(want)
	if got := o.post.told(); !slices.Equal(got, want) {
		o.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if n := o.count(`select count(*) from parked_entries`); n != 0 {
		o.Errorf("%d entries are parked", n)
	}
}

// The stories of people who book and wait, each told once and as what it is.
func TestMail_TellsEachStory(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]struct {
		happens func(o *owner)
		want    []string
	}{
		"held": {func(o *owner) { o.Book(7, o.Now, evently.Item{Quantity: 2}) }, []string{"hold_made u7"}},
		"confirmed": {func(o *owner) {
			o.decide(&evently.Confirm{User: 7, Token: o.Book(7, o.Now, evently.Item{Quantity: 2}).ID.Token}, o.Now)
		}, []string{"booking_confirmed u7"}},
		"given back": {func(o *owner) {
			o.decide(&evently.Release{User: 7, Token: o.Book(7, o.Now, evently.Item{Quantity: 2}).ID.Token}, o.Now)
		}, nil},
		"cancelled": {func(o *owner) {
			held := o.Book(7, o.Now, evently.Item{Quantity: 2})
			o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, o.Now)
			o.decide(&evently.Cancel{User: 7, Token: held.ID.Token}, o.Now)
		}, []string{"booking_confirmed u7", "booking_cancelled u7"}},
		"event cancelled": {func(o *owner) {
			for user := evently.UserID(6); user < 8; user++ { // the organizer, who cancels it, has a booking as well
				held := o.Book(user, o.Now, evently.Item{Quantity: 1})
				o.decide(&evently.Confirm{User: user, Token: held.ID.Token}, o.Now)
			}
			cancelled := o.Book(7, o.Now, evently.Item{Quantity: 1})
			o.decide(&evently.Confirm{User: 7, Token: cancelled.ID.Token}, o.Now)
			o.decide(&evently.Cancel{User: 7, Token: cancelled.ID.Token}, o.Now)
			o.Book(8, o.Now, evently.Item{Quantity: 1})
			o.decide(&evently.CancelEvent{}, o.Now)
		}, []string{
			"booking_confirmed u6", "booking_confirmed u7", "booking_confirmed u7", "booking_cancelled u7", "event_cancelled u6",
			"event_cancelled u7",
		}},
		"waiting": {func(o *owner) {
			o.Book(1, o.Now, evently.Item{Quantity: 10})
			o.Join(7, o.Now, evently.BookOnRelease, evently.Item{Quantity: 1})
			o.Join(8, o.Now, evently.BookOnRelease, evently.Item{Quantity: 1})
			o.decide(&evently.LeaveWaitlist{User: 8}, o.Now)
		}, []string{"hold_made u1", "waitlist_joined u7"}},
		"booked from the waitlist": {func(o *owner) {
			held := o.Book(1, o.Now, evently.Item{Quantity: 10})
			o.Join(7, o.Now, evently.BookOnRelease, evently.Item{Quantity: 2})
			o.decide(&evently.Release{User: 1, Token: held.ID.Token}, o.Now)
		}, []string{"waitlist_booked u7"}},
		"offered": {func(o *owner) {
			held := o.Book(1, o.Now, evently.Item{Quantity: 10})
			o.Join(7, o.Now, evently.HoldOnRelease, evently.Item{Quantity: 2})
			o.decide(&evently.Release{User: 1, Token: held.ID.Token}, o.Now)
		}, []string{"waitlist_offer u7"}},
		"offer confirmed": {func(o *owner) {
			held := o.Book(1, o.Now, evently.Item{Quantity: 10})
			waiter := o.Join(7, o.Now, evently.HoldOnRelease, evently.Item{Quantity: 2})
			o.decide(&evently.Release{User: 1, Token: held.ID.Token}, o.Now)
			o.decide(&evently.Confirm{User: 7, Token: waiter.ID.Token}, o.Now)
		}, []string{"booking_confirmed u7"}},
		"waited in vain": {func(o *owner) {
			o.Book(1, o.Now, evently.Item{Quantity: 10})
			o.Join(7, o.Now, evently.BookOnRelease, evently.Item{Quantity: 2})
			o.decide(&evently.CancelEvent{}, o.Now)
		}, []string{"waitlist_closed u7"}},
		"prices change": {func(o *owner) {
			o.Book(7, o.Now, evently.Item{Quantity: 1})
			o.decide(&evently.SetPricing{
				Version: o.Ledger.Event().Version, Rule: &evently.PricingRule{FloorBps: 20_000, CeilingBps: 20_000},
			}, o.Now)
		}, []string{"hold_made u7"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, nil)
			seller := o.acquire(o.event(10))
			seller.Now = seller.Now.Truncate(time.Millisecond)
			story.happens(seller)
			seller.MustFlush()
			o.follow()
			working(t, o.jobs)
			o.want(story.want...)
			ids := make(map[string]bool)
			for _, mail := range o.post.mails() {
				if ids[mail.ID] || len(mail.ID) != 2*mailIDBytes {
					t.Errorf("id %q of %s", mail.ID, mail.Kind)
				}
				ids[mail.ID] = true
			}
		})
	}
}

// A story that is told entry by entry, each in a step of its own: the hold of a waiter who is booked at once is still no offer.
func TestMail_StepsMayEndAnywhere(t *testing.T) {
	o := newOffice(t, nil)
	seller := o.acquire(o.event(10))
	held := seller.Book(1, seller.Now, evently.Item{Quantity: 10})
	seller.Join(7, seller.Now, evently.BookOnRelease, evently.Item{Quantity: 2})
	seller.decide(&evently.Release{User: 1, Token: held.ID.Token}, seller.Now)
	seller.decide(&evently.CancelEvent{}, seller.Now)
	seller.MustFlush()
	consumer := o.mail.Consumer(o.jobs)
	consumer.EntriesMax = 1
	reader := readerOf(o.pool, consumer)
	for {
		_, _, err := reader.poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if o.count(`select seq::int from feed_cursors where consumer = 'mail' and seq > 0`) == int(seller.Ledger.Seq()) {
			break
		}
	}
	working(t, o.jobs)
	o.want("waitlist_booked u7", "event_cancelled u7")
}

// A mail says what is so when it is sent; what has been overtaken by then is not sent.
func TestMail_OvertakenWhileItWaited(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	seller := o.acquire(o.event(10))
	lapsed := seller.Book(1, seller.Now, evently.Item{Quantity: 1})
	confirmed := seller.Book(2, seller.Now, evently.Item{Quantity: 1})
	seller.Book(3, seller.Now, evently.Item{Quantity: 8})
	seller.Join(4, seller.Now, evently.BookOnRelease, evently.Item{Quantity: 9})
	seller.MustFlush()
	o.follow()
	o.exec(`update reservations set expires_at = now() where token = $1`, int64(lapsed.ID.Token))
	seller.decide(&evently.Confirm{User: 2, Token: confirmed.ID.Token}, seller.Now)
	seller.decide(&evently.LeaveWaitlist{User: 4}, seller.Now)
	seller.MustFlush()
	working(t, o.jobs)
	o.want("hold_made u3")
	o.follow()
	o.want("hold_made u3", "booking_confirmed u2")
}

// revise changes the details of the seller's event.
func (o *owner) revise(change func(*evently.EventDetails)) {
	o.Helper()
	details := o.Ledger.Event().EventDetails
	change(&details)
	o.decide(&evently.Revise{Version: o.Ledger.Event().Version, Details: details}, o.Now)
	o.MustFlush()
}

// Every holder hears of a change that matters, once, however many they are; and nobody of one that does not.
func TestMail_ChangesAreToldToAllHolders(t *testing.T) {
	t.Parallel()
	const holders = 2*changePageMax + 100
	o := newOffice(t, nil)
	seller := o.acquire(o.event(3 * holders))
	for i := range holders {
		user := evently.UserID(1 + i%8)
		held := seller.Book(user, seller.Now, evently.Item{Quantity: 1})
		if i%2 == 0 {
			seller.decide(&evently.Confirm{User: user, Token: held.ID.Token}, seller.Now)
		}
		ended := seller.Book(9, seller.Now, evently.Item{Quantity: 1})
		seller.decide(&evently.Release{User: 9, Token: ended.ID.Token}, seller.Now)
		if i%500 == 0 {
			seller.MustFlush()
		}
	}
	seller.MustFlush()
	o.forgo() // bookings are told in other tests
	seller.revise(func(d *evently.EventDetails) { d.Description, d.MaxPerBooking = "More of it", 5 })
	o.follow()
	if n := o.count(`select count(*) from river_job`); n != 0 {
		t.Fatalf("%d jobs for a change that does not matter", n)
	}
	before := seller.Ledger.Event().Notice()
	seller.revise(func(d *evently.EventDetails) { d.Venue, d.StartsAt = "Arena", d.StartsAt.Add(time.Hour) })
	o.follow()
	working(t, o.jobs)
	o.settled()
	reservations := make(map[evently.ReservationID]bool)
	for _, mail := range o.post.mails() {
		if mail.Kind != evently.EventChangedMail || mail.Event.Venue != "Arena" || mail.Before.Venue != before.Venue ||
			!mail.Before.StartsAt.Equal(before.StartsAt) || mail.Seq != seller.Ledger.Seq() || !mail.Reservation.Status.Live() {
			t.Fatalf("mail %+v", mail)
		}
		reservations[mail.Reservation.ID] = true
	}
	if len(reservations) != holders || len(o.post.mails()) != holders {
		t.Errorf("%d mails to %d holders, want %d", len(o.post.mails()), len(reservations), holders)
	}
}

// An event that is cancelled in the middle of telling its change is not told of two times.
func TestMail_CancellationEndsTheTellingOfAChange(t *testing.T) {
	o := newOffice(t, nil)
	seller := o.acquire(o.event(10))
	held := seller.Book(7, seller.Now, evently.Item{Quantity: 1})
	seller.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, seller.Now)
	seller.MustFlush()
	seller.revise(func(d *evently.EventDetails) { d.City = "Vienna" })
	seller.decide(&evently.CancelEvent{}, seller.Now)
	seller.MustFlush()
	o.follow()
	working(t, o.jobs)
	o.want("booking_confirmed u7", "event_cancelled u7")
}

// Events that are older than mail have no history of what was told.
func TestMail_ChangesOfOlderEvents(t *testing.T) {
	o := newOffice(t, nil)
	seller := o.acquire(o.event(10))
	seller.Book(7, seller.Now, evently.Item{Quantity: 1})
	seller.MustFlush()
	seller.revise(func(d *evently.EventDetails) { d.City = "Vienna" })
	o.forgo()
	seller.revise(func(d *evently.EventDetails) { d.Description = "no news" })
	seller.revise(func(d *evently.EventDetails) { d.City = "Graz" })
	o.follow()
	working(t, o.jobs)
	o.want("event_changed u7")
	if mail := o.post.mails()[0]; mail.Before.City != "Vienna" || mail.Event.City != "Graz" {
		t.Errorf("told of a change from %q to %q", mail.Before.City, mail.Event.City)
	}
}

// A mail server that is dead: bookings go on, the mails that wait have their bound, and everything is told when it is back.
func TestMail_DeadServerHoldsUpNothing(t *testing.T) {
	t.Parallel()
	const pendingMax, bookings = 20, 3 * mailStepMax
	o := newOffice(t, func(c *MailConfig) { c.pendingMax = pendingMax })
	o.post.behave(func(context.Context, *evently.Mail) error { return evently.ErrMailPaused }, nil)
	working(t, o.jobs)
	o.feeding(o.pool, o.mail.Consumer(o.jobs))
	seller := o.acquire(o.event(2 * bookings))
	for range bookings {
		held := seller.Book(7, seller.Now, evently.Item{Quantity: 1})
		seller.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, seller.Now)
		seller.MustFlush()
	}
	o.waitUntil("mails wait", func() bool { return o.count(`select count(*) from river_job where kind = 'mail'`) >= pendingMax })
	if n := o.count(`select count(*) from river_job where kind = 'mail'`); n > pendingMax+mailStepMax {
		t.Errorf("%d mails wait, the bound is %d and a step", n, pendingMax)
	}
	if n := o.count(`select count(*) from river_job where kind = 'mail' and attempt > 1`); n != 0 {
		t.Errorf("%d attempts are counted that were none", n)
	}
	o.post.behave(nil, nil)
	o.waitUntil("all are told", func() bool {
		o.hurry()
		return len(o.post.mails()) >= bookings
	})
	o.want(slices.Repeat([]string{"booking_confirmed u7"}, bookings)...)
}

// A mail that fails is tried again, one that is refused is not; both are recorded.
func TestMail_FailuresAreTriedAgainAndRefusalsAreNot(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	tries := make(map[string]int)
	o.post.behave(func(_ context.Context, mail *evently.Mail) error {
		o.post.mu.Lock()
		defer o.post.mu.Unlock()
		tries[mail.To]++
		switch {
		case mail.To == "u1":
			return fmt.Errorf("550: %w", evently.ErrMailRefused)
		case tries[mail.To] < 4:
			return errors.New("450 come again")
		}
		return nil
	}, nil)
	seller := o.acquire(o.event(10))
	seller.Book(1, seller.Now, evently.Item{Quantity: 1})
	seller.Book(2, seller.Now, evently.Item{Quantity: 1})
	seller.MustFlush()
	o.follow()
	working(t, o.jobs)
	o.want("hold_made u2")
	if tries["u1"] != 1 || tries["u2"] != 4 {
		t.Errorf("tries %v, want 1 and 4", tries)
	}
	if n := o.count(`select count(*) from river_job where state = 'cancelled' and errors[1]->>'error' like '%mail refused%'`); n != 1 {
		t.Errorf("%d refusals are recorded, want 1", n)
	}
}

// The node dies after the server has taken a mail and before that is recorded: it is sent again, with the same ID, and none is lost.
func TestMail_KilledBetweenSendingAndRecording(t *testing.T) {
	o := newOffice(t, nil)
	sent, killed := make(chan struct{}, 10), make(chan struct{})
	o.post.behave(nil, func(context.Context, *evently.Mail) error {
		sent <- struct{}{}
		<-killed
		return errors.New("the node is dead")
	})
	seller := o.acquire(o.event(10))
	for user := evently.UserID(1); user <= 3; user++ {
		held := seller.Book(user, seller.Now, evently.Item{Quantity: 1})
		seller.decide(&evently.Confirm{User: user, Token: held.ID.Token}, seller.Now)
	}
	seller.MustFlush()
	o.follow()
	working(t, o.jobs)
	for range 3 {
		<-sent
	}
	// Nothing more is heard of the first node; its jobs are found by another one.
	o.exec(`update river_job set state = 'available' where state = 'running'`)
	o.post.behave(nil, nil)
	close(killed)
	other, err := NewMail(o.mail.config)
	if err != nil {
		t.Fatal(err)
	}
	working(t, jobsOf(t, o.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){other.Work}}))
	o.settled()
	ids := make(map[string]int)
	for _, mail := range o.post.mails() {
		ids[mail.ID]++
	}
	for id, times := range ids {
		if times < 2 {
			t.Errorf("mail %s was sent %d times", id, times)
		}
	}
	if len(ids) != 3 {
		t.Errorf("sent %v, want 3 mails", ids)
	}
}

// Whatever kills the consumer takes its jobs and its cursor back together.
func TestMail_ConsumerKilledLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	seller := o.acquire(o.event(1000))
	for range 100 {
		held := seller.Book(7, seller.Now, evently.Item{Quantity: 1})
		seller.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, seller.Now)
	}
	seller.MustFlush()
	consumer := o.mail.Consumer(o.jobs)
	consume, n := consumer.Consume, 0
	consumer.EntriesMax = 7
	consumer.Consume = func(ctx context.Context, tx pgx.Tx, spans []Span) error {
		if err := consume(ctx, tx, spans); err != nil {
			return err
		}
		if n++; n%3 == 0 && n < 10 { // its connection breaks
			return tx.Conn().Close(ctx)
		}
		return nil
	}
	o.feeding(o.pool, consumer)
	o.waitUntil("all entries are consumed", func() bool {
		return o.count(`select coalesce(max(seq), 0)::int from feed_cursors where consumer = 'mail'`) == int(seller.Ledger.Seq())
	})
	working(t, o.jobs)
	o.want(slices.Repeat([]string{"booking_confirmed u7"}, 100)...)
}

func TestMail_CodesAreSealedAndSentInTime(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil)
	enqueue := func(mail *Mail, code *evently.CodeMail) {
		t.Helper()
		if err := pgx.BeginFunc(t.Context(), o.pool, func(tx pgx.Tx) error {
			return mail.Codes(o.jobs).EnqueueCode(t.Context(), tx, code)
		}); err != nil {
			t.Fatal(err)
		}
	}
	older, err := NewMail(MailConfig{Mailer: o.post, Secrets: [][]byte{[]byte("the secret before")}})
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	enqueue(o.mail, &evently.CodeMail{To: "ann@example.org", Purpose: evently.VerifyEmailCode, Code: "123456", ExpiresAt: soon})
	enqueue(older, &evently.CodeMail{To: "ben@example.org", Purpose: evently.ResetPasswordCode, Code: "234567", ExpiresAt: soon})
	enqueue(o.mail, &evently.CodeMail{To: "late@example.org", Purpose: evently.VerifyEmailCode, Code: "345678", ExpiresAt: time.Now()})
	for _, secret := range []string{"123456", "234567", "345678", "example.org"} {
		if n := o.count(`select count(*) from river_job j where j::text like '%' || $1 || '%'
			or encode(decode(coalesce(args->>'sealed', ''), 'base64'), 'escape') like '%' || $1 || '%'`, secret); n != 0 {
			t.Errorf("%s can be read in %d jobs", secret, n)
		}
	}
	stop := working(t, o.jobs)
	// In the middle of a rotation a node may get what only another one can open: it gives it back, for as long as the code is of use.
	o.waitUntil("the mail of an unknown secret waits for another node", func() bool {
		return len(o.post.mails()) == 1 &&
			o.count(`select count(*) from river_job where state in ('available', 'scheduled') and metadata ? 'snoozes'`) == 1
	})
	if mail := o.post.mails()[0]; mail.To != "ann@example.org" || mail.Code != "123456" || !mail.ExpiresAt.Equal(soon.Truncate(0)) || mail.Event != nil {
		t.Errorf("mail %+v", mail)
	}
	rotated, err := NewMail(MailConfig{
		Mailer: o.post, Secrets: [][]byte{[]byte("the secret"), []byte("the secret before")}, PerSecond: 1e6, Logger: discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	other := working(t, jobsOf(t, o.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){rotated.Work}}))
	o.want("verify_email ann@example.org", "reset_password ben@example.org")
	other()
	enqueue(older, &evently.CodeMail{To: "cid@example.org", Purpose: evently.ResetPasswordCode, Code: "456789", ExpiresAt: soon})
	o.exec(`update river_job set created_at = now() - interval '1 hour' where state <> 'completed'`)
	o.waitUntil("it is given up when no code lives so long", func() bool {
		return o.count(`select count(*) from river_job where state = 'cancelled'`) == 1
	})
	stop()
}

// What was sealed for one mail does not open in another.
func TestSeal_IsBoundToItsContext(t *testing.T) {
	s, err := newSeal("test", [][]byte{[]byte("a"), []byte("b")})
	if err != nil {
		t.Fatal(err)
	}
	other, err := newSeal("another purpose", [][]byte{[]byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.close([]byte("plain"), "one")
	if plain, err := s.open(sealed, "one"); err != nil || string(plain) != "plain" {
		t.Errorf("opens as %q %v", plain, err)
	}
	if _, err := s.open(sealed, "two"); err == nil {
		t.Error("opens in another context")
	}
	if _, err := other.open(sealed, "one"); err == nil {
		t.Error("opens for another purpose")
	}
	if _, err := newSeal("test", nil); err == nil {
		t.Error("seals without a secret")
	}
}

func TestMailbox_KeepsTheNewest(t *testing.T) {
	b := newBench(t, JournalConfig{})
	box := NewMailbox(b.pool)
	message := evently.Message{
		Kind: evently.BookingConfirmedMail, From: "Evently <a@b>", Subject: "s", Text: "t", HTML: "<p>", At: time.Now().UTC().Truncate(time.Millisecond),
		Attachments: []evently.Attachment{{Name: "a.ics", MediaType: "text/calendar", Content: []byte{0, 1, 255}}},
	}
	const mails = mailboxMax + 20
	for i := range mails {
		message.ID, message.To = fmt.Sprint(i), fmt.Sprint("u", i%2)
		for range 1 + i%2 { // some arrive twice
			if err := box.Deliver(t.Context(), &message); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := b.count(`select count(*) from mailbox`); n >= mailboxMax+mailboxTrim || n < mailboxMax/2 {
		t.Errorf("%d mails are kept, want %d at the most", n, mailboxMax)
	}
	got, err := box.Messages(t.Context(), "u0", 3)
	if err != nil || len(got) != 3 || got[0].ID != fmt.Sprint(mails-2) || got[1].ID != fmt.Sprint(mails-4) {
		t.Fatalf("got %+v %v", got, err)
	}
	want := message
	want.ID, want.To = got[0].ID, "u0"
	if diff := cmp.Diff(want, got[0].Message); diff != "" {
		t.Errorf("mail differs (-want +got):\n%s", diff)
	}
	if all, err := box.Messages(t.Context(), "", 5); err != nil || len(all) != 5 || all[0].ID != fmt.Sprint(mails-1) {
		t.Errorf("got %+v %v", all, err)
	}
}
