package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How much garbage the process lets gather before it collects. Go's rule is as much as there is memory in use, GOGC=100: right for large
// heaps, and for a node with few events, whose heap is small, a collection every few thousand bookings. So a small heap may
// have up to garbageMax percent of itself as garbage, as long as that is no more than an allowance: garbageBytesMax, or less where
// memory is short. A heap of the allowance's size and larger ones are collected by Go's rule. Whoever sets GOGC decides alone, and
// GOMEMLIMIT holds in any case.
const (
	garbageMin      = 100
	garbageMax      = 400
	garbageBytesMax = 256 << 20
	garbagePart     = 16 // at most this part of the machine's memory
	garbageStep     = 10 // changes by less are not made: each stops all threads for a moment
	garbagePeriod   = 250 * time.Millisecond
)

// collectGarbage sets the percentage as the heap grows and shrinks, until ctx ends.
func collectGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	allowance := garbageAllowance(memoryBytes(os.DirFS("/")))
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(garbagePeriod)
	defer ticker.Stop()
	for set := garbageMin; ; {
		metrics.Read(live)
		if want := garbagePercent(live[0].Value.Uint64(), allowance); want-set >= garbageStep || set-want >= garbageStep {
			set = want
			debug.SetGCPercent(set)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// garbagePercent is what GOGC is to be when so many bytes are in use.
func garbagePercent(live, allowance uint64) int {
	return int(min(max(100*allowance/max(live, 1), garbageMin), garbageMax))
}

// garbageAllowance is the garbage that a small heap may have on a machine with so much memory; 0: it is not known how much.
func garbageAllowance(memory uint64) uint64 {
	if memory == 0 {
		return garbageBytesMax / 4
	}
	return min(memory/garbagePart, garbageBytesMax)
}

// memoryBytes is the memory that the process may use, by its control groups and the machine: 0 when none tells.
func memoryBytes(root fs.FS) uint64 {
	var least uint64
	offer := func(bytes uint64, err error) {
		if err == nil && bytes > 0 && (least == 0 || bytes < least) {
			least = bytes
		}
	}
	for _, name := range limitFiles(root) {
		if text, err := fs.ReadFile(root, name); err == nil {
			offer(strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)) // or "max"
		}
	}
	if text, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		if fields := bytes.Fields(text); len(fields) > 1 && string(fields[0]) == "MemTotal:" {
			kib, err := strconv.ParseUint(string(fields[1]), 10, 54)
			offer(kib<<10, err)
		}
	}
	return least
}

// limitFiles names where the limits of the process's control group and of all groups around it stand: each of them holds. In a
// container the group is the root of what it sees; elsewhere, as in a unit of systemd, it has a path.
func limitFiles(root fs.FS) (names []string) {
	v2, v1 := "/", "/"
	if text, err := fs.ReadFile(root, "proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(text)) { // number:controllers:path
			switch parts := strings.SplitN(strings.TrimSpace(line), ":", 3); {
			case len(parts) < 3:
			case parts[0] == "0":
				v2 = parts[2]
			case slices.Contains(strings.Split(parts[1], ","), "memory"):
				v1 = parts[2]
			}
		}
	}
	for _, group := range []struct{ mount, path, file string }{
		{"sys/fs/cgroup", v2, "memory.max"}, {"sys/fs/cgroup/memory", v1, "memory.limit_in_bytes"},
	} {
		for at := path.Join("/", group.path); ; at = path.Dir(at) {
			names = append(names, path.Join(group.mount, at, group.file))
			if at == "/" {
				break
			}
		}
	}
	return names
}
