package proctest

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// How a load balancer looks after its nodes.
const (
	balancerPeriod = 100 * time.Millisecond
	balancerMax    = time.Second // bounds a question
)

// Balancer is the set of nodes that requests go to: those that it is told, or those whose /readyz is 200.
type Balancer struct {
	mu  sync.Mutex
	set []*Server
}

// Set tells which nodes to use from now on, on top of those that Follow adds.
func (b *Balancer) Set(servers ...*Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set = slices.Clone(servers)
}

// Follow asks nodes whether they are ready until the test ends: every 100 ms, for at most a second each.
func (b *Balancer) Follow(t testing.TB, servers ...*Server) {
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Transport: &http.Transport{}, Timeout: balancerMax}
	var following sync.WaitGroup
	for _, s := range servers {
		following.Go(func() {
			ticker := time.NewTicker(balancerPeriod)
			defer ticker.Stop()
			for ctx.Err() == nil {
				answer, err := (&Client{HTTP: client, API: s.API}).Send(ctx, http.MethodGet, "/readyz", "", "")
				b.use(s, err == nil && answer.Status == http.StatusOK)
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		following.Wait()
		client.CloseIdleConnections()
	})
}

func (b *Balancer) use(s *Server, ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := slices.Index(b.set, s)
	switch {
	case ready && at < 0:
		b.set = append(b.set, s)
	case !ready && at >= 0:
		b.set = slices.Delete(b.set, at, at+1)
	}
}

// Ready is how many nodes are in the set.
func (b *Balancer) Ready() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.set)
}

// pick returns a node at random, nil when there is none.
func (b *Balancer) pick() *Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.set) == 0 {
		return nil
	}
	return b.set[rand.IntN(len(b.set))]
}
