package store

import (
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

const oldSecuritySQL = `
insert into security_log (at, kind, ip, user_agent, request_id)
select $1::timestamptz - interval '1 hour' * i, 'signed_in', '', '', '' from generate_series(1, $2::int8) i`

func TestRetention_ByPolicy(t *testing.T) {
	const day = 24 * time.Hour
	b := newBench(t, JournalConfig{})
	x := b.busy(3, 6, 4)
	for i := range 50 {
		at := x.Now.Add(time.Duration(i) * time.Second)
		x.expire(at)
		x.step(at)
		x.expire(at)
	}
	x.MustFlush()
	entries := b.count("select count(*) from journal")
	now := time.Now().UTC().Truncate(time.Millisecond)
	b.exec(oldSecuritySQL, now, 500*24)
	b.exec(`insert into mailbox (message_id, kind, sender, recipient, subject, body, html, attachments, at)
		select i::text, 0, '', '', '', '', '', '[]', $1::timestamptz - interval '1 day' * i from generate_series(1, 50) i`, now)
	b.exec(`insert into answers select md5(i::text)::uuid, '', 200, '{}', '', $1::timestamptz - interval '1 hour' * i from generate_series(1, 100) i`, now)

	retention := NewRetention(b.pool, discard)
	sweep := func() Swept {
		t.Helper()
		swept, err := retention.Sweep(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		return swept
	}
	if got, want := sweep(), (Swept{SecurityLog: 100 * 24, Mails: 20, Answers: 76}); got != want {
		t.Errorf("by default %+v was removed, want %+v", got, want)
	}
	retention.Policies = RetentionPolicies{} // never
	if got := sweep(); got != (Swept{}) {
		t.Errorf("%+v was removed, though nothing ever is", got)
	}
	retention.Policies = RetentionPolicies{SecurityLog: 31 * day, Mail: day, Answers: 24 * time.Hour}
	if got, want := sweep(), (Swept{SecurityLog: (400 - 31) * 24, Mails: 29}); got != want {
		t.Errorf("%+v was removed, want %+v", got, want)
	}
	for name, policies := range map[string]RetentionPolicies{
		"security log": {SecurityLog: SecurityLogKeepMin - time.Second},
		"answers":      {Answers: evently.KeyRetentionMin - time.Second},
	} {
		retention.Policies = policies
		if _, err := retention.Sweep(t.Context(), now); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: got %v", policies, err)
		}
	}
	for what, n := range map[string]int{
		"select count(*) from security_log": 31 * 24, "select count(*) from mailbox": 1, "select count(*) from answers": 24,
		"select count(*) from journal": entries,
	} {
		if got := b.count(what); got != n {
			t.Errorf("%s: %d, want %d", what, got, n)
		}
	}
	b.verify()
	// The ledger goes on with all that it knew.
	again := b.acquire(x.Ledger.Event().ID)
	if again.Ledger.Live() != x.Ledger.Live() {
		t.Errorf("%d live reservations, want %d", again.Ledger.Live(), x.Ledger.Live())
	}
}
