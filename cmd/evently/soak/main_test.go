package soak

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/cmd/evently/proctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(proctest.Wrap(m)) }
