package store

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"

	"github.com/evently/evently"
)

func TestTake_IsFairAndLosesNothing(t *testing.T) {
	check := func(seed uint64, limit uint8) bool {
		random := rand.New(rand.NewPCG(seed, 1))
		var spans []Span
		for i := range random.IntN(30) {
			after := random.Uint64N(100)
			spans = append(spans, Span{evently.EventID(i + 1), after, after + 1 + random.Uint64N(50)})
		}
		limit = max(limit, 1)
		before := slices.Clone(spans)
		taken, rest := take(spans, int(limit))
		total := entriesOf(spans)
		if entriesOf(taken) != min(total, uint64(limit)) || entriesOf(taken)+entriesOf(rest) != total || !slices.Equal(spans, before) {
			return false
		}
		if len(spans) > 0 && len(taken) != min(len(spans), int(limit)) {
			return false // everybody gets something
		}
		// Who is cut short got no less than anybody else, but for one.
		most := uint64(0)
		for _, s := range taken {
			most = max(most, s.entries())
		}
		for _, s := range taken {
			whole := slices.Contains(spans, s)
			if !whole && s.entries()+1 < most {
				return false
			}
		}
		// Together they are what was there.
		ends := map[evently.EventID]Span{}
		for _, s := range append(slices.Clone(taken), rest...) {
			if known, found := ends[s.Event]; found {
				if known.Upto != s.After {
					return false
				}
				s.After = known.After
			}
			ends[s.Event] = s
		}
		got := make([]Span, 0, len(ends))
		for _, s := range ends {
			got = append(got, s)
		}
		slices.SortFunc(got, func(a, b Span) int { return cmp.Compare(a.Event, b.Event) })
		return slices.Equal(got, before) || len(before) == 0
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 3000}); err != nil {
		t.Error(err)
	}
}
