// Package faults tests what clients of a cluster notice of faults, and what is lost: nothing. Every test lets a crowd book, does
// harm, and audits the outcome.
//
// The tests run in parallel, since most of their time is waiting. The times until all events are served again are logged; they
// are asserted with a margin, since the machine may be busy.
package faults

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/cmd/evently/proctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(proctest.Wrap(m)) }
