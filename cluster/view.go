package cluster

import (
	"cmp"
	"slices"

	protocluster "github.com/asynkron/protoactor-go/cluster"
)

// key names a virtual actor.
type key struct{ kind, identity string }

func (k key) String() string { return k.kind + "/" + k.identity }

// hash is the same on every member and in every release: members of different versions must agree on owners.
// FNV-1a (64 bit) of kind, a zero byte, identity.
func (k key) hash() uint64 {
	return fnv1a(k.identity, fnv1a(k.kind, fnvOffset)*fnvPrime)
}

// member is a candidate owner.
type member struct {
	id, addr string
	hash     uint64
}

// view is one agreed list of members. It never changes; a new list is a new view.
type view struct {
	hash    uint64              // topologyHash of the members, for logs
	addrs   map[string]string   // of actor messages, by member id
	byKind  map[string][]member // sorted by id
	serving map[string]struct{} // ids of members with a kind
	quorate bool                // enough members to serve
	changed chan struct{}       // closed when a newer view is in force
}

// newView makes a view of members. Fewer than quorum of them own nothing; quorum 0 is always met.
func newView(hash uint64, members []*protocluster.Member, quorum int) *view {
	v := &view{
		hash:    hash,
		addrs:   make(map[string]string, len(members)),
		byKind:  make(map[string][]member),
		serving: make(map[string]struct{}),
		quorate: len(members) >= quorum,
		changed: make(chan struct{}),
	}
	for _, m := range members {
		v.addrs[m.Id] = m.Address()
		if len(m.Kinds) > 0 {
			v.serving[m.Id] = struct{}{}
		}
		for _, kind := range m.Kinds {
			v.byKind[kind] = append(v.byKind[kind], member{id: m.Id, addr: m.Address(), hash: fnv1a(m.Id, fnvOffset)})
		}
	}
	for _, candidates := range v.byKind {
		slices.SortFunc(candidates, func(a, b member) int { return cmp.Compare(a.id, b.id) })
	}
	return v
}

// owner returns the member that serves the key with that hash, or nil when there is none: no quorum, or no member hosts
// the kind. Rendezvous hashing: the highest score wins, so a member's leaving moves only its own identities.
func (v *view) owner(kind string, hash uint64) *member {
	if !v.quorate {
		return nil
	}
	candidates := v.byKind[kind]
	var best *member
	var high uint64
	for i := range candidates {
		if score := mix(hash ^ candidates[i].hash); best == nil || score > high {
			best, high = &candidates[i], score
		}
	}
	return best
}

func (v *view) contains(id string) bool {
	_, ok := v.addrs[id]
	return ok
}

// topologyHash tells lists of members apart that differ in ids or kinds. They must be in the order of their ids.
func topologyHash(members []*protocluster.Member) uint64 {
	h := fnvOffset
	for _, m := range members {
		h = fnv1a("\x00"+m.Id, h)
		for _, kind := range m.Kinds {
			h = fnv1a("\x01"+kind, h)
		}
	}
	return h
}

const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

// fnv1a continues the hash h over s.
func fnv1a(s string, h uint64) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// mix spreads every input bit over all output bits (the 64-bit finalizer of MurmurHash3). FNV alone leaves the high bits
// of similar short strings alike, which skews the comparison of scores.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
