package peers

import (
	"testing"
)

// TestPeers is the conformance of all designs that sell.
func TestPeers(t *testing.T) {
	for _, d := range All() {
		if d.Ceiling {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			w := newWorld(t, d.Name) // each test has events of its own
			for name, test := range map[string]func(*testing.T, *world){
				"EachSeatIsSoldOnce":                    eachSeatIsSoldOnce,
				"EachSeatIsSoldOnceOfAnUnpreparedEvent": eachSeatIsSoldOnceUnprepared,
				"SeatsGoBackAndForth":                   seatsGoBackAndForth,
				"SeveralSeatsAreHadTogetherOrNot":       severalSeatsTogether,
				"BookingIsAHold":                        bookingIsAHold,
				"RepetitionHasTheFirstAnswer":           repetitionHasTheFirstAnswer,
				"KeyOfAnotherRequestIsRefused":          keyOfAnotherRequest,
				"WhatNobodyMayHaveIsRefused":            whatNobodyMayHave,
				"ReservationLivesAndEnds":               reservationLivesAndEnds,
				"ReservationIsItsOwners":                reservationIsItsOwners,
				"ExpiredHoldIsSoldAgain":                expiredHoldIsSoldAgain,
				"ExpiringHoldsAreSoldOnce":              expiringHoldsAreSoldOnce,
				"ChangeOfTheEventIsSeen":                changeOfTheEvent,
				"PreparingAgainChangesNothing":          preparingAgain,
				"UnsupportedCommandSaysSo":              unsupportedCommand,
			} {
				t.Run(name, func(t *testing.T) { test(t, w) })
			}
		})
	}
}
