package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// RetentionPolicies say how long what is of a kind stays. Zero is for ever, except that what is shorter than the least time of its
// kind is refused. The journal is no kind of these: it is never removed.
type RetentionPolicies struct {
	SecurityLog time.Duration // SecurityLogKeepMin at least
	Mail        time.Duration // in the mailbox
	Answers     time.Duration // to requests with an Idempotency-Key, other than bookings; evently.KeyRetentionMin at least
	Webhooks    time.Duration // ended deliveries in the log, which has a bound for each webhook besides
}

// SecurityLogKeepMin is the least time that the security log is kept. The database itself refuses to remove what is younger.
const SecurityLogKeepMin = 30 * 24 * time.Hour

// defaultRetention keeps for longer than a year what an investigation may need, and other things for a month at the most.
var defaultRetention = RetentionPolicies{
	SecurityLog: 400 * 24 * time.Hour, Mail: 30 * 24 * time.Hour, Answers: evently.KeyRetentionMin, Webhooks: 30 * 24 * time.Hour,
}

func (p *RetentionPolicies) check() error {
	if p.SecurityLog != 0 && p.SecurityLog < SecurityLogKeepMin {
		return fmt.Errorf("retention: the security log is kept for %s, and has to be for %s", p.SecurityLog, SecurityLogKeepMin)
	}
	if p.Answers != 0 && p.Answers < evently.KeyRetentionMin {
		return fmt.Errorf("retention: answers are kept for %s, and promised for %s", p.Answers, evently.KeyRetentionMin)
	}
	return nil
}

const (
	// sweepOldSecurityLogSQL calls a function of the database's owner, see the migration: the program's role may not delete.
	sweepOldSecurityLogSQL = `select sweep_security_log($1, $2)`

	// sweepMailboxSQL reads all of the mailbox, which is small.
	sweepMailboxSQL = `
delete from mailbox where number = any (array(select number from mailbox where at < $1 order by number limit $2))`
)

// sweepSecurityLog removes lines of the log from before a moment.
func (r *Retention) sweepSecurityLog(ctx context.Context, before time.Time) (removed int64, err error) {
	return r.batches(ctx, func(tx pgx.Tx) (batch int64, err error) {
		err = tx.QueryRow(ctx, sweepOldSecurityLogSQL, before, sweptRowsMax).Scan(&batch)
		return batch, err
	})
}
