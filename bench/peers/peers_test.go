package peers

import "testing"

// TestPeers is the conformance of all designs that sell.
func TestPeers(t *testing.T) {
	for _, d := range All() {
		if d.Ceiling {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			w := newWorld(t, d.Name) // each test has events of its own
			for _, c := range []struct {
				name string
				test func(*testing.T, *world)
			}{
				{"EachSeatIsSoldOnce", eachSeatIsSoldOnce},
				{"EachSeatIsSoldOnceOfAnUnpreparedEvent", eachSeatIsSoldOnceUnprepared},
				{"SeatsGoBackAndForth", seatsGoBackAndForth},
				{"SeveralSeatsAreHadTogetherOrNot", severalSeatsTogether},
				{"BookingIsAHold", bookingIsAHold},
				{"RepetitionHasTheFirstAnswer", repetitionHasTheFirstAnswer},
				{"KeyOfAnotherRequestIsRefused", keyOfAnotherRequest},
				{"WhatNobodyMayHaveIsRefused", whatNobodyMayHave},
				{"ReservationLivesAndEnds", reservationLivesAndEnds},
				{"ReservationIsItsOwners", reservationIsItsOwners},
				{"ExpiredHoldIsSoldAgain", expiredHoldIsSoldAgain},
				{"ExpiringHoldsAreSoldOnce", expiringHoldsAreSoldOnce},
				{"ChangeOfTheEventIsSeen", changeOfTheEvent},
				{"PreparingAgainChangesNothing", preparingAgain},
				{"UnsupportedCommandSaysSo", unsupportedCommand},
			} {
				t.Run(c.name, func(t *testing.T) { c.test(t, w) })
			}
		})
	}
}
