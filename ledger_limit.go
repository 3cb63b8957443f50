package evently

// withinUserLimit returns ErrUserLimitExceeded when a user would have more seats than the event allows.
func (l *Ledger) withinUserLimit(items *Items, user UserID) error {
	if l.userSeats != nil && l.userSeats[user]+items.Quantity() > l.event.MaxPerUser {
		return ErrUserLimitExceeded
	}
	return nil
}

// countUserSeats begins to count the seats of each user when the event has got a limit, and ends it when the limit is gone.
func (l *Ledger) countUserSeats() {
	switch {
	case l.event.MaxPerUser == 0:
		l.userSeats = nil
	case l.userSeats == nil:
		l.userSeats = make(map[UserID]int)
		for slot := range l.records.liveFrom(0) {
			items := l.records.items(slot)
			l.addUserSeats(l.records.at(slot).user, &items, 1)
		}
		for w := range l.waiters.next(nil) {
			l.addUserSeats(w.User, &w.Items, 1)
		}
	}
}

func (l *Ledger) addUserSeats(user UserID, items *Items, sign int) {
	if l.userSeats == nil {
		return
	}
	if l.userSeats[user] += sign * items.Quantity(); l.userSeats[user] == 0 {
		delete(l.userSeats, user)
	}
}
