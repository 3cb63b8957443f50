package evently

import (
	"math/big"
	"slices"
	"time"
)

type modelWaiter struct {
	Waiter
	key   Key
	first Waiter // as it was when it joined
}

func (m *model) findWaiter(token Token) *modelWaiter {
	for _, w := range m.queue {
		if w.ID.Token == token {
			return w
		}
	}
	return nil
}

// waiting lists those who wait in the order of service.
func (m *model) waiting() (waiting []*modelWaiter) {
	for _, w := range m.queue {
		if w.Status == Waiting {
			waiting = append(waiting, w)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *modelWaiter) int { return b.Priority - a.Priority })
	return waiting
}

// nextServed is the first one whom free seats suffice for, or nil.
func (m *model) nextServed() *modelWaiter {
	waiting := m.waiting()
	if len(waiting) == 0 {
		return nil
	}
	var free []int
	for tier := range m.event.Tiers {
		free = append(free, m.count(tier).Available())
	}
	for _, w := range waiting {
		suffice := true
		for item := range w.Items.All() {
			suffice = suffice && item.Quantity <= free[item.Tier]
		}
		if suffice {
			return w
		}
	}
	return nil
}

// serve posts and returns the entries that serve up to SweepMax waiters.
func (m *model) serve(now time.Time) (entries []Entry) {
	post := func(e Entry) {
		e.Seq, e.At = m.seq+1, now
		m.post(&e)
		entries = append(entries, e)
	}
	for range SweepMax {
		w := m.nextServed()
		if w == nil || !m.onSale(now) {
			break
		}
		var priced []Item
		for item := range w.Items.All() {
			item.UnitPriceMinor = m.event.Tiers[item.Tier].PriceMinor
			priced = append(priced, item)
		}
		post(Entry{
			Kind: HeldEntry, Token: w.ID.Token, User: w.User, Items: mustItems(priced...), ExpiresAt: now.Add(m.event.HoldTTL), Waiter: true,
		})
		if w.OnRelease == BookOnRelease {
			post(Entry{Kind: ConfirmedEntry, Token: w.ID.Token})
		}
	}
	return entries
}

// close posts and returns the entries that close up to SweepMax waiters.
func (m *model) close(now time.Time) (entries []Entry) {
	waiting := m.waiting()
	for _, w := range waiting[:min(len(waiting), SweepMax)] {
		e := Entry{Kind: WaiterClosedEntry, Seq: m.seq + 1, At: now, Token: w.ID.Token}
		m.post(&e)
		entries = append(entries, e)
	}
	return entries
}

func (m *model) endWaiter(e *Entry, status WaiterStatus) {
	w := m.findWaiter(e.Token)
	if w.Status != Waiting {
		panic("ends twice")
	}
	w.Status, w.EndedAt, w.Seq = status, e.At, e.Seq
}

func (m *model) decideJoin(cmd *JoinWaitlist, now time.Time) modelDecision {
	for _, w := range m.queue {
		if w.key == cmd.Key {
			if w.User != cmd.User || w.OnRelease != cmd.OnRelease || !sameSeats(w.Items, cmd.Items) {
				return modelDecision{err: ErrKeyReused}
			}
			return modelDecision{waiter: &w.first, replayed: w.ID.Token != cmd.Token}
		}
	}
	asked, refusal := m.admit(cmd.Items, now)
	if refusal != nil {
		return modelDecision{err: refusal}
	}
	for _, item := range asked {
		if item.Quantity > m.event.Tiers[item.Tier].Capacity {
			return modelDecision{err: ErrQuantityExceedsLimit}
		}
	}
	if m.beyondLimit(cmd.User, cmd.Items) {
		return modelDecision{err: ErrUserLimitExceeded}
	}
	free, position := true, 1
	for i, item := range asked {
		free = free && item.Quantity <= m.count(item.Tier).Available()
		asked[i].UnitPriceMinor = 0
	}
	if free {
		return modelDecision{err: ErrSeatsAvailable}
	}
	for _, w := range m.waiting() {
		if w.User == cmd.User {
			return modelDecision{err: ErrAlreadyWaiting}
		}
		if w.Priority >= 0 {
			position++
		}
	}
	w := Waiter{
		ID: WaiterID{m.event.ID, cmd.Token}, User: cmd.User, Items: mustItems(asked...), OnRelease: cmd.OnRelease, Position: position,
		JoinedAt: now, JoinedSeq: m.seq + 1, Seq: m.seq + 1,
	}
	return modelDecision{waiter: &w, entries: []Entry{{
		Kind: WaitlistedEntry, Seq: m.seq + 1, At: now, Token: cmd.Token, User: cmd.User, Key: cmd.Key, Items: w.Items, OnRelease: cmd.OnRelease,
		Position: position,
	}}}
}

func (m *model) decideLeave(cmd *LeaveWaitlist, now time.Time) modelDecision {
	var last *modelWaiter
	for _, w := range m.queue {
		if w.User == cmd.User {
			last = w
		}
	}
	if last == nil {
		return modelDecision{err: ErrWaiterNotFound}
	}
	w := last.Waiter
	if w.Status == Waiting {
		w.Status, w.EndedAt, w.Seq = Left, now, m.seq+1
		return modelDecision{waiter: &w, entries: []Entry{{Kind: WaiterLeftEntry, Seq: m.seq + 1, At: now, Token: w.ID.Token}}}
	}
	d := modelDecision{waiter: &w}
	if r := m.find(w.ID.Token); r != nil {
		d.reservation = r.Reservation
		if r.Status == Held {
			d = m.decideEnd(r, now)
			d.waiter = &w
		}
	}
	return d
}

func (m *model) decidePrioritize(cmd *Prioritize, now time.Time) modelDecision {
	known := m.findWaiter(cmd.Token)
	switch {
	case known == nil:
		return modelDecision{err: ErrWaiterNotFound}
	case known.Status != Waiting:
		return modelDecision{err: ErrNotWaiting}
	case known.Priority == cmd.Priority:
		return modelDecision{waiter: &known.Waiter}
	}
	w := known.Waiter
	w.Priority, w.Seq = cmd.Priority, m.seq+1
	return modelDecision{waiter: &w, entries: []Entry{{
		Kind: WaiterPrioritizedEntry, Seq: m.seq + 1, At: now, Token: cmd.Token, Priority: cmd.Priority,
	}}}
}

func (m *model) decideSetPricing(cmd *SetPricing, now time.Time) modelDecision {
	switch {
	case m.event.Status == EventCancelled:
		return modelDecision{err: ErrEventCancelled}
	case cmd.Version != m.event.Version:
		return modelDecision{err: ErrVersionStale}
	}
	set := func(e *Event) { e.Pricing, e.Tiers = cmd.Rule, m.prices(cmd.Rule, now) }
	if cmd.DryRun {
		event := *m.event
		set(&event)
		return modelDecision{event: &event}
	}
	return m.decideEvent(EventPricingSetEntry, now, set)
}

func (m *model) decideReprice(cmd *Reprice, now time.Time) modelDecision {
	switch {
	case m.event.Status == EventCancelled:
		return modelDecision{err: ErrEventCancelled}
	case m.event.Status == EventDraft, m.event.Pricing == nil, !now.Before(m.event.StartsAt):
		return modelDecision{event: m.event}
	}
	tiers := m.prices(m.event.Pricing, now)
	if slices.Equal(tiers, m.event.Tiers) {
		return modelDecision{event: m.event}
	}
	if cmd.DryRun {
		event := *m.event
		event.Tiers = tiers
		return modelDecision{event: &event}
	}
	return m.decideEvent(EventRepricedEntry, now, func(e *Event) { e.Tiers = tiers })
}

// prices are the tiers with the prices that a rule gives.
func (m *model) prices(rule *PricingRule, now time.Time) []Tier {
	tiers := slices.Clone(m.event.Tiers)
	for i := range tiers {
		tiers[i].PriceMinor = tiers[i].BasePriceMinor
		if rule == nil {
			continue
		}
		count := m.count(i)
		basis := PriceBasis{
			BasePriceMinor: tiers[i].BasePriceMinor, Capacity: count.Capacity, Taken: count.Held + count.Booked,
			StartsIn: m.event.StartsAt.Sub(now),
		}
		for _, w := range m.waiting() {
			for item := range w.Items.All() {
				if item.Tier == i {
					basis.Waiting += item.Quantity
				}
			}
		}
		tiers[i].PriceMinor = modelPrice(rule, basis)
	}
	return tiers
}

// modelPrice calculates with fractions.
func modelPrice(rule *PricingRule, b PriceBasis) int64 {
	demand := 0
	if b.Capacity > 0 {
		demand = (b.Taken + b.Waiting) * 10_000 / b.Capacity
	}
	hours := max(0, int(b.StartsIn.Hours()))
	price := big.NewRat(b.BasePriceMinor, 1)
	price.Mul(price, big.NewRat(modelFactor(rule.Curve, demand), 10_000))
	price.Mul(price, big.NewRat(modelFactor(rule.Time, hours), 10_000))
	if rule.Step.EverySeats > 0 {
		steps := big.NewRat(int64(b.Taken/rule.Step.EverySeats), 1)
		price.Add(price, steps.Mul(steps, big.NewRat(rule.Step.AddMinor, 1)))
	}
	multiple := big.NewRat(max(1, rule.RoundMinor), 1)
	price.Quo(price, multiple)
	whole := new(big.Int).Quo(price.Num(), price.Denom())
	rest := new(big.Rat).Sub(price, new(big.Rat).SetInt(whole))
	if rule.Rounding == RoundUp && rest.Sign() > 0 || rule.Rounding == RoundNearest && rest.Cmp(big.NewRat(1, 2)) >= 0 {
		whole.Add(whole, big.NewInt(1))
	}
	whole.Mul(whole, multiple.Num())
	part := func(bps int) *big.Int {
		n := new(big.Int).Mul(big.NewInt(b.BasePriceMinor), big.NewInt(int64(bps)))
		return n.Quo(n, big.NewInt(10_000))
	}
	if floor := part(rule.FloorBps); whole.Cmp(floor) < 0 {
		whole = floor
	}
	if ceiling := part(rule.CeilingBps); rule.CeilingBps > 0 && whole.Cmp(ceiling) > 0 {
		whole = ceiling
	}
	if most := big.NewInt(PriceMinorMax); whole.Cmp(most) > 0 {
		whole = most
	}
	return whole.Int64()
}

func modelFactor(curve []PricePoint, at int) int64 {
	if len(curve) == 0 {
		return 10_000
	}
	i := 0
	for i < len(curve) && curve[i].At <= at {
		i++
	}
	switch i {
	case 0:
		return int64(curve[0].FactorBps)
	case len(curve):
		return int64(curve[i-1].FactorBps)
	}
	from, to := curve[i-1], curve[i]
	factor := big.NewRat(int64(to.FactorBps-from.FactorBps), int64(to.At-from.At))
	factor.Mul(factor, big.NewRat(int64(at-from.At), 1)).Add(factor, big.NewRat(int64(from.FactorBps), 1))
	return new(big.Int).Quo(factor.Num(), factor.Denom()).Int64()
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clone returns a model that can be posted to without changing this one.
func (m *model) clone() *model {
	c := *m
	c.list, c.queue = nil, nil
	for _, r := range m.list {
		other := *r
		c.list = append(c.list, &other)
	}
	for _, w := range m.queue {
		other := *w
		c.queue = append(c.queue, &other)
	}
	return &c
}
