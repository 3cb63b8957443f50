package evently

// Command asks an event's ledger for a change. Commands are pointers so that passing one allocates nothing.
type Command interface{ command() }

// Book asks for a hold on seats, all items or none. Refusals, in this order: ErrKeyReused, ErrEventNotFound for a draft, ErrEventNotOnSale,
// CodeInvalidRequest for OnlyTier when the event offers several tiers, ErrUnknownTier, ErrQuantityExceedsLimit, ErrSoldOut.
//
// A Key that the ledger knows is answered with the first answer again. Whether the request is the same one is
// decided by the seats it asks for, which is all that the body of a booking says.
type Book struct {
	User  UserID
	Key   Key // never zero
	Items Items
	Token Token // fresh and random, never zero; becomes the reservation's
}

// Confirm makes a hold a booking. Repeating it changes nothing. Refusals: ErrReservationNotFound (also for another
// user's), ErrReservationExpired, ErrReservationCancelled.
type Confirm struct {
	User  UserID
	Token Token
}

// Release gives a hold back. Repeating it, also after expiry, changes nothing. Refusals: ErrReservationNotFound,
// ErrReservationConfirmed.
type Release struct {
	User  UserID
	Token Token
}

// Cancel ends a booking, or a hold, and frees its seats once. Repeating it changes nothing.
// Refusals: ErrReservationNotFound, ErrReservationExpired.
type Cancel struct {
	User  UserID
	Token Token
}

// Expire ends holds that are due, at most SweepMax of them; NextDue says whether more are.
type Expire struct{}

// Revise replaces the details of an event. Details are valid and normalized, keep every tier at its index, and are not
// modified afterwards. Refusals, in this order: ErrEventCancelled, ErrVersionStale, CodeInvalidRequest when the currency
// differs, CodeCapacityBelowSold.
type Revise struct {
	Version uint64 // that the change was made against
	Details EventDetails
}

// Publish puts a draft on sale. Repeating it changes nothing. Refusal: ErrEventCancelled.
type Publish struct{}

// CancelEvent ends all sales and cancels every live reservation, the first SweepMax in the same batch of entries and
// the others by the Sweeps that follow. Repeating it changes nothing.
type CancelEvent struct{}

// Sweep cancels live reservations of a cancelled event, at most SweepMax of them; NextDue says whether more are left.
type Sweep struct{}

// SweepMax bounds the reservations that one Expire, Sweep or CancelEvent ends.
const SweepMax = 512

func (*Book) command()        {}
func (*Confirm) command()     {}
func (*Release) command()     {}
func (*Cancel) command()      {}
func (*Expire) command()      {}
func (*Revise) command()      {}
func (*Publish) command()     {}
func (*CancelEvent) command() {}
func (*Sweep) command()       {}
