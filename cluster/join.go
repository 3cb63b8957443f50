package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// joinEvery is how often seeds are tried while none has answered, and below the quorum, where the pause doubles up to
	// joinEveryMax. With a quorum, rejoinEvery is how often those are tried that are not members: memberlist never calls on
	// a member again that it has given up.
	joinEvery    = 250 * time.Millisecond
	joinEveryMax = time.Second
	rejoinEvery  = 5 * time.Second
	// joinsMax bounds the seeds called on at the same time: one that does not answer must not hold up the others.
	joinsMax = 8
	// resolveTimeout bounds the look-up of one seed's host name.
	resolveTimeout = 2 * time.Second
)

// join blocks until a seed has answered, another member has come by itself, or there is nobody to join.
func (p *provider) join() error {
	retry := time.NewTicker(joinEvery)
	defer retry.Stop()
	for tries := 0; ; tries++ {
		seeds, err := p.missingSeeds()
		if err == nil && len(seeds) == 0 || p.others() > 0 {
			return nil
		}
		for _, seed := range seeds {
			if _, err = p.list.Join([]string{seed}); err == nil {
				return nil
			}
			if p.stopped() {
				break
			}
		}
		if tries == 0 {
			p.log.Warn("no seed can be joined yet", "seeds", p.cfg.Join, "error", err)
		}
		select {
		case <-retry.C:
		case <-p.stop:
		}
		if p.stopped() {
			return fmt.Errorf("join %v: %w", p.cfg.Join, err)
		}
	}
}

// missingSeeds returns the addresses of seeds that are not members now, and the first failure to find one.
func (p *provider) missingSeeds() ([]string, error) {
	known := map[netip.AddrPort]bool{p.address: true}
	for _, m := range p.alive() {
		if ip, ok := netip.AddrFromSlice(m.node.Addr); ok {
			known[netip.AddrPortFrom(ip.Unmap(), m.node.Port)] = true
		}
	}
	var missing []string
	found := make([][]netip.AddrPort, len(p.cfg.Join))
	var queries errgroup.Group
	queries.SetLimit(joinsMax)
	for i, seed := range p.cfg.Join {
		queries.Go(func() (err error) {
			found[i], err = resolveSeed(seed)
			return err
		})
	}
	err := queries.Wait()
	for _, addresses := range found {
		for _, address := range addresses {
			// A host name may have addresses of both families; members listen on one.
			if address.Addr().Is4() == p.address.Addr().Is4() && !known[address] {
				known[address] = true
				missing = append(missing, address.String())
			}
		}
	}
	return missing, err
}

func resolveSeed(seed string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("seed %s: %w", seed, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("seed %s: %w", seed, err)
	}
	addresses := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addresses[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return addresses, nil
}

// rejoinLoop calls on the seeds that are not members, at once and often below the quorum, seldom with it.
func (p *provider) rejoinLoop() {
	for pause := joinEvery; ; {
		err := p.joinMissing()
		wait := rejoinEvery
		if p.short.Load() {
			if err != nil && pause == joinEvery {
				p.log.Warn("below the quorum, and not all seeds can be joined yet", "seeds", p.cfg.Join, "error", err)
			}
			wait, pause = pause, min(2*pause, joinEveryMax)
		} else {
			if err != nil {
				p.log.Debug("not all seeds can be joined", "seeds", p.cfg.Join, "error", err)
			}
			pause = joinEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-p.stop:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// joinMissing calls on all seeds that are not members, and returns the first failure.
func (p *provider) joinMissing() error {
	seeds, err := p.missingSeeds()
	var calls errgroup.Group
	calls.SetLimit(joinsMax)
	for _, seed := range seeds {
		calls.Go(func() error {
			if p.stopped() {
				return nil
			}
			_, err := p.list.Join([]string{seed})
			if err == nil {
				p.log.Info("seed joined", "seed", seed)
			}
			return err
		})
	}
	return errors.Join(err, calls.Wait())
}
