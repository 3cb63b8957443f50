package evently

import (
	"iter"
	"math/bits"
)

// record is a reservation inside a ledger, 72 bytes. With its places in two indexes and in the due heap a live
// reservation costs less than 100 bytes.
type record struct {
	token          Token
	user           UserID
	key            Key
	createdAt      int64 // milliseconds
	createdSeq     uint64
	offer          uint32 // index in records.offers
	confirmedAfter uint32 // milliseconds from createdAt to the confirmation, which is before expiry
	confirmedLow   uint32 // with confirmedHigh: entries from createdSeq to the confirmation; 0: never confirmed
	position       uint32 // held: in the due heap; ended: in the endings
	confirmedHigh  uint16
	quantity       uint16
	status         ReservationStatus
	more           bool // further items are in records.more
	used           bool
}

// offer is what many reservations have in common, stored once.
type offer struct {
	unitPriceMinor int64
	ttl            int64 // milliseconds from creation to expiry
	tier           int
}

func (r *record) confirmed() bool    { return r.confirmedLow != 0 || r.confirmedHigh != 0 }
func (r *record) confirmedAt() int64 { return r.createdAt + int64(r.confirmedAfter) }
func (r *record) confirmedSeq() uint64 {
	return r.createdSeq + uint64(r.confirmedHigh)<<32 + uint64(r.confirmedLow)
}

func (r *record) confirm(at int64, seq uint64) {
	r.status = Confirmed
	r.confirmedAfter = uint32(at - r.createdAt)
	r.confirmedLow, r.confirmedHigh = uint32(seq-r.createdSeq), uint16((seq-r.createdSeq)>>32)
}

const (
	chunkBits = 10
	chunkLen  = 1 << chunkBits
)

// records holds reservations in chunks, so that growing never copies them, and finds them by token and by key.
// A slot is the place of a record; it is used again when the record is removed.
type records struct {
	chunks  []*[chunkLen]record
	used    uint32 // slots ever in use
	free    []uint32
	more    map[uint32][]Item
	offers  []offer
	offerAt map[offer]uint32
	byToken index
	byKey   index
	seed    uint64
}

func newRecords(seed uint64) records {
	return records{seed: seed, offerAt: make(map[offer]uint32)}
}

func (s *records) at(slot uint32) *record { return &s.chunks[slot>>chunkBits][slot&(chunkLen-1)] }

func (s *records) add(token Token, user UserID, key Key, items Items, createdAt, expiresAt int64, seq uint64) uint32 {
	slot := s.take()
	*s.at(slot) = record{
		token: token, user: user, key: key, createdAt: createdAt, createdSeq: seq, used: true, quantity: uint16(items.first.Quantity),
		offer: s.intern(offer{items.first.UnitPriceMinor, expiresAt - createdAt, items.first.Tier}),
	}
	if len(items.rest) > 0 {
		if s.more == nil {
			s.more = make(map[uint32][]Item)
		}
		s.more[slot] = items.rest
		s.at(slot).more = true
	}
	s.byToken.add(slot, s.tokenHash)
	if key != (Key{}) {
		s.byKey.add(slot, s.keyHash)
	}
	return slot
}

// intern returns the index of an offer. Nearly always it is the newest one.
func (s *records) intern(o offer) uint32 {
	if last := len(s.offers) - 1; last >= 0 && s.offers[last] == o {
		return uint32(last)
	}
	i, found := s.offerAt[o]
	if !found {
		i = uint32(len(s.offers))
		s.offers = append(s.offers, o)
		s.offerAt[o] = i
	}
	return i
}

func (s *records) take() uint32 {
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot
	}
	if s.used>>chunkBits == uint32(len(s.chunks)) {
		s.chunks = append(s.chunks, new([chunkLen]record))
	}
	s.used++
	return s.used - 1
}

func (s *records) remove(slot uint32) {
	s.byToken.remove(slot, s.tokenHash)
	if s.at(slot).key != (Key{}) {
		s.byKey.remove(slot, s.keyHash)
	}
	delete(s.more, slot)
	*s.at(slot) = record{}
	s.free = append(s.free, slot)
}

func (s *records) expiresAt(slot uint32) int64 {
	r := s.at(slot)
	return r.createdAt + s.offers[r.offer].ttl
}

func (s *records) items(slot uint32) Items {
	r := s.at(slot)
	o := &s.offers[r.offer]
	items := Items{first: Item{Tier: o.tier, Quantity: int(r.quantity), UnitPriceMinor: o.unitPriceMinor}}
	if r.more {
		items.rest = s.more[slot]
	}
	return items
}

// liveFrom iterates over the slots of live reservations, from a slot on.
func (s *records) liveFrom(slot uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for ; slot < s.used; slot++ {
			if r := s.at(slot); r.used && r.status.Live() && !yield(slot) {
				return
			}
		}
	}
}

func (s *records) find(token Token) (slot uint32, found bool) {
	for i := s.byToken.start(uint64(token)); ; i = s.byToken.next(i) {
		slot, found = s.byToken.at(i)
		if !found || s.at(slot).token == token {
			return slot, found
		}
	}
}

func (s *records) findKey(key Key) (slot uint32, found bool) {
	for i := s.byKey.start(s.hashKey(key)); ; i = s.byKey.next(i) {
		slot, found = s.byKey.at(i)
		if !found || s.at(slot).key == key {
			return slot, found
		}
	}
}

// Tokens are random already.
func (s *records) tokenHash(slot uint32) uint64 { return uint64(s.at(slot).token) }

func (s *records) keyHash(slot uint32) uint64 { return s.hashKey(s.at(slot).key) }

// hashKey is one folded multiplication, as in wyhash: without the seed nobody can choose keys that collide.
func (s *records) hashKey(key Key) uint64 {
	hi, lo := bits.Mul64(key.Hi^s.seed, key.Lo^bits.RotateLeft64(s.seed, 32)|1)
	return hi ^ lo
}

// index is an open-addressing hash table of slots with linear probing. It stores 4 bytes a place and reads the hash
// of a slot from the record itself. It is filled to three quarters at the most.
type index struct {
	places []uint32 // slot + 1; 0: empty
	len    int
}

func (x *index) start(hash uint64) uint32 {
	return uint32(hash) & uint32(len(x.places)-1)
}

func (x *index) next(i uint32) uint32 { return (i + 1) & uint32(len(x.places)-1) }

func (x *index) at(i uint32) (slot uint32, found bool) {
	if len(x.places) == 0 || x.places[i] == 0 {
		return 0, false
	}
	return x.places[i] - 1, true
}

func (x *index) add(slot uint32, hash func(slot uint32) uint64) {
	if (x.len+1)*4 > len(x.places)*3 {
		grown := index{places: make([]uint32, max(8, 2*len(x.places)))}
		for _, place := range x.places {
			if place != 0 {
				grown.put(place-1, hash)
			}
		}
		*x = grown
	}
	x.put(slot, hash)
}

func (x *index) put(slot uint32, hash func(slot uint32) uint64) {
	i := x.start(hash(slot))
	for x.places[i] != 0 {
		i = x.next(i)
	}
	x.places[i] = slot + 1
	x.len++
}

// remove takes a slot out and moves later slots of the same run back, so that no tombstone is needed
// (Knuth, The Art of Computer Programming, volume 3, section 6.4, algorithm R).
func (x *index) remove(slot uint32, hash func(slot uint32) uint64) {
	hole := x.start(hash(slot))
	for x.places[hole] != slot+1 {
		hole = x.next(hole)
	}
	mask := uint32(len(x.places) - 1)
	for i := x.next(hole); x.places[i] != 0; i = x.next(i) {
		home := x.start(hash(x.places[i] - 1))
		if (i-home)&mask >= (i-hole)&mask {
			x.places[hole] = x.places[i]
			hole = i
		}
	}
	x.places[hole] = 0
	x.len--
}
