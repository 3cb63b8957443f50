package bench

import (
	"testing"
	"time"
)

func TestReading_CommitsNeedBothReadings(t *testing.T) {
	began := time.Now()
	for _, c := range []struct {
		before, after reading
		want          float64
	}{
		{reading{commits: 1000, counted: true}, reading{commits: 1300, counted: true}, 100},
		{reading{commits: 1000, counted: true}, reading{}, 0},
		{reading{}, reading{commits: 1300, counted: true}, 0},
	} {
		c.before.at, c.after.at = began, began.Add(3*time.Second)
		var round Round
		if c.after.since(&c.before, &round); round.Commits != c.want {
			t.Errorf("%+v to %+v: %v commits a second, want %v", c.before, c.after, round.Commits, c.want)
		}
	}
}
