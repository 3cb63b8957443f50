package store

import (
	"context"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

func (m *JobMetrics) middleware() []rivertype.Middleware {
	return []rivertype.Middleware{&jobMeter{metrics: m}}
}

// jobMeter watches the attempts at jobs.
type jobMeter struct {
	river.MiddlewareDefaults
	metrics *JobMetrics
}

// Work implements rivertype.WorkerMiddleware.
func (m *jobMeter) Work(ctx context.Context, job *rivertype.JobRow, work func(context.Context) error) error {
	begun := time.Now()
	outcome := "discarded" // a panic
	defer func() {
		m.metrics.attempts.WithLabelValues(job.Kind, outcome).Inc()
		m.metrics.seconds.WithLabelValues(job.Kind).Observe(time.Since(begun).Seconds())
	}()
	err := work(ctx)
	outcome = jobOutcome(job, err)
	return err
}

func jobOutcome(job *rivertype.JobRow, err error) string {
	var snoozed *rivertype.JobSnoozeError
	var cancelled *rivertype.JobCancelError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &snoozed):
		return "snoozed"
	case errors.As(err, &cancelled):
		return "cancelled"
	case job.Attempt >= job.MaxAttempts:
		return "discarded"
	}
	return "retried"
}
