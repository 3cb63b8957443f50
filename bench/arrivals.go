package bench

import (
	"math"
	"math/rand/v2"
	"sort"
	"time"
)

// arrivals is a Poisson process: the gaps between its moments are independent and exponentially distributed. It depends on its
// source of randomness alone and not on what becomes of those who arrive.
type arrivals struct {
	random *rand.Rand
	gap    float64 // the mean one, in nanoseconds
	at     float64
}

func newArrivals(random *rand.Rand, perSecond float64) *arrivals {
	return &arrivals{random: random, gap: float64(time.Second) / perSecond}
}

// next returns the next moment, from the beginning of the process.
func (a *arrivals) next() time.Duration {
	a.at += a.gap * a.random.ExpFloat64()
	return time.Duration(a.at)
}

// zipf draws ranks from 0 on: rank k is drawn with a probability in proportion to (k+1) to the power of -exponent, exactly but
// for rounding. With the exponent 0 all ranks are drawn equally often.
type zipf struct{ upTo []float64 } // the sum of the weights up to each rank

func newZipf(ranks int, exponent float64) *zipf {
	z := &zipf{make([]float64, ranks)}
	sum := 0.0
	for k := range z.upTo {
		sum += math.Pow(float64(k+1), -exponent)
		z.upTo[k] = sum
	}
	return z
}

func (z *zipf) draw(random *rand.Rand) int {
	if len(z.upTo) == 1 {
		return 0
	}
	at := random.Float64() * z.upTo[len(z.upTo)-1]
	return min(sort.Search(len(z.upTo), func(k int) bool { return z.upTo[k] > at }), len(z.upTo)-1)
}
