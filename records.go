package evently

import (
	"fmt"
	"iter"
	"math/bits"
	"slices"
)

// record is a reservation inside a ledger: 64 bytes, one cache line. With its places in two indexes and among the due a live
// reservation costs about 85 to 100 bytes.
type record struct {
	token          Token // 0: the record is free
	user           UserID
	key            Key
	offer          uint32 // index in records.offers
	position       uint32 // held: among the due; ended: in the endings
	confirmedAfter uint32 // milliseconds from creation to confirmation, which comes before expiry
	createdAt      int48  // milliseconds
	createdSeq     int48
	confirmedSeq   int48 // 0: never confirmed
	status         ReservationStatus
	early          bool // held: position is that in the due heap
}

// int48 is a number from -2^47 on and below 2^47, in 6 bytes. It holds the milliseconds of 44 centuries.
type int48 [3]uint16

func newInt48(n int64) int48 { return int48{uint16(n), uint16(n >> 16), uint16(n >> 32)} }

func (n int48) int64() int64 { return int64(uint64(n[0])<<16|uint64(n[1])<<32|uint64(n[2])<<48) >> 16 }

// offer is what many reservations have in common, stored once.
type offer struct {
	first Item
	ttl   int64 // milliseconds from creation to expiry
	more  bool  // further items are in records.more
}

func (r *record) confirmed() bool    { return r.confirmedSeq != int48{} }
func (r *record) confirmedAt() int64 { return r.createdAt.int64() + int64(r.confirmedAfter) }

func (r *record) confirm(at int64, seq uint64) {
	r.status = Confirmed
	r.confirmedAfter = uint32(at - r.createdAt.int64())
	r.confirmedSeq = newInt48(int64(seq))
}

const (
	chunkBits     = 10
	chunkLen      = 1 << chunkBits
	firstChunkLen = 2 // most events that are in memory have few reservations
)

// records holds reservations in chunks, so that growing does not copy them, and finds them by token and by key. Only the first
// chunk begins small, and is copied until it has the length of the others: no record's address outlives an add.
// A slot is the place of a record; it is used again when the record is removed.
type records struct {
	chunks  [][]record
	used    uint32 // slots ever in use
	free    []uint32
	more    map[uint32][]Item
	offers  []offer
	offerAt map[offer]uint32 // nil: there are so few that looking through them is as fast
	recent  []uint32         // indexes of offers used lately, by tier and quantity
	byToken index
	byKey   index
	seed    uint64
}

func newRecords(seed uint64) records {
	return records{seed: seed, byToken: newIndex(indexLenMin), byKey: newIndex(indexLenMin)}
}

func (s *records) at(slot uint32) *record { return &s.chunks[slot>>chunkBits][slot&(chunkLen-1)] }

func (s *records) add(token Token, user UserID, key Key, items *Items, createdAt, expiresAt int64, seq uint64) uint32 {
	slot := s.take()
	*s.at(slot) = record{
		token: token, user: user, key: key, createdAt: newInt48(createdAt), createdSeq: newInt48(int64(seq)),
		offer: s.intern(&offer{items.first, expiresAt - createdAt, len(items.rest) > 0}),
	}
	if len(items.rest) > 0 {
		if s.more == nil {
			s.more = make(map[uint32][]Item)
		}
		s.more[slot] = items.rest
	}
	if !s.byToken.add(slot, uint64(token)) {
		s.grow(&s.byToken, s.tokenHash, func(r *record) bool { return r.token != 0 })
	}
	if key != (Key{}) && !s.byKey.add(slot, s.hashKey(key)) {
		s.grow(&s.byKey, s.keyHash, func(r *record) bool { return r.key != Key{} })
	}
	return slot
}

// grow makes an index larger and fills it from the records, in their order: that is about twice as fast as in the
// order of the old index, which reads them at random.
func (s *records) grow(x *index, hash func(slot uint32) uint64, has func(r *record) bool) {
	size := 2 * len(x.places)
	for size <= int(s.used) {
		size *= 2
	}
	*x = newIndex(size)
	var slots [touchAhead]uint32
	var hashes [touchAhead]uint64
	for slot := uint32(0); slot < s.used; {
		n := 0
		for ; n < touchAhead && slot < s.used; slot++ {
			if has(s.at(slot)) {
				slots[n], hashes[n] = slot, hash(slot)
				x.touch(hashes[n])
				n++
			}
		}
		for i := range n {
			if !x.add(slots[i], hashes[i]) {
				panic(fmt.Sprintf("ledger: %d records do not fit into an index of %d places", s.used, size))
			}
		}
	}
}

// touch brings the places of a reservation that is about to be added into the processor's cache.
func (s *records) touch(token Token, key Key) {
	s.byToken.touch(uint64(token))
	s.byKey.touch(s.hashKey(key))
}

// offersFew is how many offers are looked through, instead of having a map of them.
const offersFew = 8

// intern returns the index of an offer. Nearly always it was used just before.
func (s *records) intern(o *offer) uint32 {
	const quantities = 8 // with more the places are shared
	place := o.first.Tier*quantities + o.first.Quantity%quantities
	for len(s.recent) <= place {
		s.recent = append(s.recent, make([]uint32, quantities)...)
	}
	recent := &s.recent[place]
	if *recent < uint32(len(s.offers)) && s.offers[*recent] == *o {
		return *recent
	}
	i, found := s.offerOf(o)
	if !found {
		i = uint32(len(s.offers))
		s.offers = append(s.offers, *o)
		switch {
		case s.offerAt != nil:
			s.offerAt[*o] = i
		case len(s.offers) > offersFew:
			s.offerAt = make(map[offer]uint32)
			for i, known := range s.offers {
				s.offerAt[known] = uint32(i)
			}
		}
	}
	*recent = i
	return i
}

func (s *records) offerOf(o *offer) (i uint32, found bool) {
	if s.offerAt != nil {
		i, found = s.offerAt[*o]
		return i, found
	}
	at := slices.Index(s.offers, *o)
	return uint32(at), at >= 0
}

func (s *records) take() uint32 {
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot
	}
	switch {
	case s.used == 0:
		s.chunks = append(s.chunks, make([]record, firstChunkLen))
	case s.used < chunkLen && s.used == uint32(len(s.chunks[0])):
		larger := make([]record, 2*s.used)
		copy(larger, s.chunks[0])
		s.chunks[0] = larger
	case s.used>>chunkBits == uint32(len(s.chunks)):
		s.chunks = append(s.chunks, make([]record, chunkLen))
	}
	s.used++
	return s.used - 1
}

func (s *records) remove(slot uint32) {
	s.byToken.remove(slot, s.tokenHash)
	if s.at(slot).key != (Key{}) {
		s.byKey.remove(slot, s.keyHash)
	}
	if s.offers[s.at(slot).offer].more {
		delete(s.more, slot)
	}
	*s.at(slot) = record{}
	s.free = append(s.free, slot)
}

func (s *records) expiresAt(slot uint32) int64 {
	r := s.at(slot)
	return r.createdAt.int64() + s.offers[r.offer].ttl
}

func (s *records) items(slot uint32) Items {
	o := &s.offers[s.at(slot).offer]
	items := Items{first: o.first}
	if o.more {
		items.rest = s.more[slot]
	}
	return items
}

func (s *records) live(slot uint32) bool {
	r := s.at(slot)
	return r.token != 0 && r.status.Live()
}

// liveFrom iterates over the slots of live reservations, from a slot on.
func (s *records) liveFrom(slot uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for ; slot < s.used; slot++ {
			if s.live(slot) && !yield(slot) {
				return
			}
		}
	}
}

func (s *records) find(token Token) (slot uint32, found bool) {
	x, hash := &s.byToken, uint64(token)
	for i := x.start(hash); x.places[i] != 0; i = x.next(i) {
		if slot, maybe := x.at(i, hash); maybe && s.at(slot).token == token {
			return slot, true
		}
	}
	return 0, false
}

func (s *records) findKey(key Key) (slot uint32, found bool) {
	x, hash := &s.byKey, s.hashKey(key)
	for i := x.start(hash); x.places[i] != 0; i = x.next(i) {
		if slot, maybe := x.at(i, hash); maybe && s.at(slot).key == key {
			return slot, true
		}
	}
	return 0, false
}

// Tokens are random already.
func (s *records) tokenHash(slot uint32) uint64 { return uint64(s.at(slot).token) }

func (s *records) keyHash(slot uint32) uint64 { return s.hashKey(s.at(slot).key) }

// hashKey is one folded multiplication, as in wyhash: without the seed nobody can choose keys that collide.
func (s *records) hashKey(key Key) uint64 {
	hi, lo := bits.Mul64(key.Hi^s.seed, key.Lo^bits.RotateLeft64(s.seed, 32)|1)
	return hi ^ lo
}

// index is an open-addressing hash table of slots with linear probing, filled to three quarters at the most.
//
// A place has 4 bytes: slot + 1 in as many low bits as number the places, in the top how far it is from the place where the slot would
// be best, and between them bits of the hash. So a search reads hardly a record but the one it is for, and a removal none of those
// behind it. 0 is an empty place.
type index struct {
	places []uint32 // a power of two
	len    int
	noted  uint32 // keeps the compiler from dropping what touch reads
	shift  int    // of the bits of a place that say how far it is from the slot's home
}

const (
	indexLenMin  = 8
	distanceBits = 5 // fewer in an index of more than 2^27 places
)

func newIndex(places int) index {
	return index{places: make([]uint32, places), shift: max(32-distanceBits, bits.Len32(uint32(places-1)))}
}

func (x *index) mask() uint32 { return uint32(len(x.places) - 1) }

func (x *index) start(hash uint64) uint32 { return uint32(hash) & x.mask() }

func (x *index) next(i uint32) uint32 { return (i + 1) & x.mask() }

// distanceMax stands for itself and for all longer distances.
func (x *index) distanceMax() uint32 { return 1<<(32-x.shift) - 1 }

// label is the bits of the hash and of the distance that a slot with this hash has at a place.
func (x *index) label(i uint32, hash uint64) uint32 {
	distance := min((i-uint32(hash))&x.mask(), x.distanceMax())
	return (uint32(hash>>32)&(1<<x.shift-1) | distance<<x.shift) &^ x.mask()
}

// at returns the slot at a place that is not empty, and whether its hash may be this one.
func (x *index) at(i uint32, hash uint64) (slot uint32, maybe bool) {
	place := x.places[i]
	return place&x.mask() - 1, place&^x.mask() == x.label(i, hash)
}

// touchAhead is how many places are touched before they are used. Reads that nothing waits for go on side by side, and a large index is
// in no cache: one after the other they cost several times as much as all the rest.
const touchAhead = 32

func (x *index) touch(hash uint64) { x.noted ^= x.places[x.start(hash)] }

// add returns false when the index must grow first.
func (x *index) add(slot uint32, hash uint64) bool {
	mask := x.mask()
	if (x.len+1)*4 > len(x.places)*3 || slot >= mask {
		return false
	}
	i := x.start(hash)
	for x.places[i] != 0 {
		i = x.next(i)
	}
	x.places[i] = x.label(i, hash) | slot + 1
	x.len++
	return true
}

// remove takes a slot out and moves later slots of the same run back, so that no tombstone is needed
// (Knuth, The Art of Computer Programming, volume 3, section 6.4, algorithm R).
func (x *index) remove(slot uint32, hash func(slot uint32) uint64) {
	mask, far := x.mask(), x.distanceMax()
	hole := x.start(hash(slot))
	for x.places[hole]&mask != slot+1 {
		hole = x.next(hole)
	}
	for i := x.next(hole); x.places[i] != 0; i = x.next(i) {
		place := x.places[i]
		distance := place >> x.shift
		if distance == far {
			distance = (i - uint32(hash(place&mask-1))) & mask
		}
		if moved := (i - hole) & mask; distance >= moved {
			x.places[hole] = place&(1<<x.shift-1) | min(distance-moved, far)<<x.shift
			hole = i
		}
	}
	x.places[hole] = 0
	x.len--
}
