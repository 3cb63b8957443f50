package evently

import (
	"maps"
	"math"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// An index with any hashes, however bad, holds the slots that were added and not removed.
func TestIndex_HoldsWhatWasAdded(t *testing.T) {
	for name, hash := range map[string]func(slot uint32) uint64{
		"random":                    func(slot uint32) uint64 { return spread(uint64(slot)) },
		"one home":                  func(slot uint32) uint64 { return uint64(slot) << 32 },
		"one home and one tag":      func(uint32) uint64 { return 1<<63 | 7 },
		"last home, so runs wrap":   func(slot uint32) uint64 { return math.MaxUint64 - uint64(slot%3) },
		"homes in a row":            func(slot uint32) uint64 { return uint64(slot) },
		"homes in a row, backwards": func(slot uint32) uint64 { return -uint64(slot) },
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				x := newIndex(indexLenMin)
				held := map[uint32]bool{}
				grow := func() {
					x = newIndex(2 * len(x.places))
					for slot := range held {
						x.add(slot, hash(slot))
					}
				}
				slot := rapid.Uint32Range(0, 40)
				t.Repeat(map[string]func(*rapid.T){
					"add": func(t *rapid.T) {
						slot := slot.Draw(t, "slot")
						if held[slot] {
							t.Skip("is there")
						}
						for !x.add(slot, hash(slot)) {
							if (x.len+1)*4 <= len(x.places)*3 && int(slot)+1 < len(x.places) {
								t.Fatalf("%d of %d places hold no more", x.len, len(x.places))
							}
							grow()
						}
						held[slot] = true
					},
					"remove": func(t *rapid.T) {
						if len(held) == 0 {
							t.Skip("is empty")
						}
						slot := rapid.SampledFrom(slices.Sorted(maps.Keys(held))).Draw(t, "slot")
						delete(held, slot)
						x.remove(slot, hash)
					},
					"": func(t *rapid.T) {
						if x.len != len(held) {
							t.Fatalf("has %d slots, want %d", x.len, len(held))
						}
						for slot := range uint32(41) {
							if found := indexHas(&x, slot, hash(slot)); found != held[slot] {
								t.Fatalf("slot %d: found %v, want %v", slot, found, held[slot])
							}
						}
					},
				})
			})
		})
	}
}

func indexHas(x *index, slot uint32, hash uint64) bool {
	for i := x.start(hash); x.places[i] != 0; i = x.next(i) {
		if found, maybe := x.at(i, hash); maybe && found == slot {
			return true
		}
	}
	return false
}

// A search that reads the record of every slot it passes is several times slower in a large ledger.
func TestIndex_PassesOtherSlotsWithoutReadingTheirRecords(t *testing.T) {
	x := newIndex(1 << 16)
	slots := uint32(len(x.places) / 4 * 3)
	for slot := range slots {
		if !x.add(slot, spread(uint64(slot))) {
			t.Fatalf("full at %d", slot)
		}
	}
	passed, read := 0, 0
	for n := range uint64(slots) {
		hash := spread(n + 1<<40)
		for i := x.start(hash); x.places[i] != 0; i = x.next(i) {
			passed++
			if _, maybe := x.at(i, hash); maybe {
				read++
			}
		}
	}
	if read*1000 > passed {
		t.Fatalf("%d of %d records read, want less than a thousandth", read, passed)
	}
}

func TestRecords_FindsByTokenAndByKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newRecords(rapid.Uint64().Draw(t, "seed"))
		type identity struct {
			token Token
			key   Key
		}
		held := map[uint32]identity{}
		byToken, byKey := map[Token]uint32{}, map[Key]uint32{}
		token := rapid.Custom(func(t *rapid.T) Token {
			n := rapid.Uint64Range(1, 60).Draw(t, "n")
			return Token([]uint64{n, n << 32, n << 58, spread(n)}[rapid.IntRange(0, 3).Draw(t, "kind")])
		})
		key := rapid.Custom(func(t *rapid.T) Key {
			return Key{rapid.Uint64Range(0, 3).Draw(t, "hi"), rapid.Uint64Range(0, 9).Draw(t, "lo")}
		})
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				id := identity{token.Draw(t, "token"), key.Draw(t, "key")}
				_, tokenHeld := byToken[id.token]
				_, keyHeld := byKey[id.key]
				if tokenHeld || keyHeld {
					t.Skip("is there")
				}
				items := OneItem(seats(0, 1))
				if id.token%2 == 0 {
					items = mustItems(seats(0, 1), seats(3, int(id.token%9)+1))
				}
				slot := s.add(id.token, UserID(id.token), id.key, &items, 5, 9, 7)
				if _, taken := held[slot]; taken {
					t.Fatalf("slot %d is given twice", slot)
				}
				held[slot], byToken[id.token] = id, slot
				if id.key != (Key{}) {
					byKey[id.key] = slot
				}
			},
			"remove": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("is empty")
				}
				slot := rapid.SampledFrom(slices.Sorted(maps.Keys(held))).Draw(t, "slot")
				s.remove(slot)
				delete(byToken, held[slot].token)
				delete(byKey, held[slot].key)
				delete(held, slot)
			},
			"": func(t *rapid.T) {
				for n := range uint64(61) {
					for _, token := range []Token{Token(n), Token(n << 32), Token(n << 58), Token(spread(n))} {
						slot, found := s.find(token)
						if want, held := byToken[token]; found != held || found && slot != want {
							t.Fatalf("token %x: got %d, %v, want %d, %v", token, slot, found, want, held)
						}
					}
				}
				for hi := range uint64(4) {
					for lo := range uint64(10) {
						slot, found := s.findKey(Key{hi, lo})
						if want, held := byKey[Key{hi, lo}]; found != held || found && slot != want {
							t.Fatalf("key %x %x: got %d, %v, want %d, %v", hi, lo, slot, found, want, held)
						}
					}
				}
				for slot, id := range held {
					items := s.items(slot)
					want := 1
					if id.token%2 == 0 {
						want += int(id.token%9) + 1
					}
					if s.at(slot).user != UserID(id.token) || s.expiresAt(slot) != 9 || items.Quantity() != want {
						t.Fatalf("slot %d: got %+v, %v", slot, *s.at(slot), items)
					}
				}
			},
		})
	})
}

// Storage clears the keys of old bookings. The first key after a million of those must find room at once.
func TestRecords_FirstKeyAfterManyWithoutOne(t *testing.T) {
	for _, n := range []uint32{0, 1, 7, 8, 100, 1<<12 - 2, 1<<12 - 1, 1 << 12, 10_000} {
		s := newRecords(1)
		items := OneItem(seats(0, 1))
		for i := range uint64(n) {
			s.add(Token(spread(i)), 1, Key{}, &items, 0, 1, 1)
		}
		slot := s.add(1, 1, Key{1, 1}, &items, 0, 1, 1)
		if found, ok := s.findKey(Key{1, 1}); !ok || found != slot || slot != n {
			t.Fatalf("after %d: got %d, %v", n, found, ok)
		}
	}
}

// An equal offer is stored once, also when other offers come between.
func TestRecords_OffersAreShared(t *testing.T) {
	s := newRecords(1)
	for round := range 3 {
		for tier := range TiersMax {
			for quantity := 1; quantity <= 20; quantity++ {
				for _, ttl := range []int64{1, 2} {
					i := s.intern(&offer{first: Item{tier, quantity, 100}, ttl: ttl})
					if got := s.offers[i]; got.first.Tier != tier || got.first.Quantity != quantity || got.ttl != ttl {
						t.Fatalf("got %+v", got)
					}
				}
			}
		}
		if want := TiersMax * 20 * 2; len(s.offers) != want {
			t.Fatalf("round %d: %d offers, want %d", round, len(s.offers), want)
		}
	}
}

func TestRecord_FillsACacheLine(t *testing.T) {
	if size := unsafe.Sizeof(record{}); size != 64 {
		t.Fatalf("a record has %d bytes, want 64", size)
	}
}

func TestInt48_RoundTrip(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 1 << 16, -1 << 16, 1<<32 - 1, 1<<47 - 1, -1 << 47, epoch.UnixMilli()} {
		if got := newInt48(n).int64(); got != n {
			t.Errorf("got %d, want %d", got, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(-1<<47, 1<<47-1).Draw(t, "n")
		if got := newInt48(n).int64(); got != n {
			t.Fatalf("got %d, want %d", got, n)
		}
	})
}
