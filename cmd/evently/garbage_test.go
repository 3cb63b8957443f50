package main

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestGarbagePercent(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, memory uint64
		want         int
	}{
		{0, 8 << 30, 400},
		{20 * mib, 8 << 30, 400},
		{128 * mib, 8 << 30, 200},
		{256 * mib, 8 << 30, 100},
		{4 << 30, 8 << 30, 100},
		{20 * mib, 512 * mib, 160}, // an allowance of 32 MiB
		{40 * mib, 512 * mib, 100},
		{20 * mib, 0, 320},
	} {
		if got := garbagePercent(c.live, garbageAllowance(c.memory)); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

func TestMemoryBytes(t *testing.T) {
	const (
		v2, v1 = "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
		info   = "proc/meminfo"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"nothing":  {nil, 0},
		"machine":  {map[string]string{info: "MemTotal:       2048 kB\nMemFree: 1 kB\n"}, 2 << 20},
		"group":    {map[string]string{v2: "1048576\n", info: "MemTotal: 2048 kB\n"}, 1 << 20},
		"no limit": {map[string]string{v2: "max\n", info: "MemTotal: 2048 kB\n"}, 2 << 20},
		"unit": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/x.service\n", "sys/fs/cgroup/system.slice/x.service/memory.max": "65536\n", info: "MemTotal: 2048 kB\n",
		}, 64 << 10},
		"slice around the unit": {map[string]string{
			"proc/self/cgroup": "0::/a.slice/b.slice/x.service\n", "sys/fs/cgroup/a.slice/b.slice/x.service/memory.max": "max\n",
			"sys/fs/cgroup/a.slice/b.slice/memory.max": "131072\n", "sys/fs/cgroup/a.slice/memory.max": "65536\n", info: "MemTotal: 2048 kB\n",
		}, 64 << 10},
		"unit within a slice": {map[string]string{
			"proc/self/cgroup": "0::/a.slice/x.service\n", "sys/fs/cgroup/a.slice/x.service/memory.max": "65536\n",
			"sys/fs/cgroup/a.slice/memory.max": "131072\n", info: "MemTotal: 2048 kB\n",
		}, 64 << 10},
		"group beside the namespace": {map[string]string{"proc/self/cgroup": "0::/../x\n", v2: "65536\n"}, 64 << 10},
		"old unit": {map[string]string{
			"proc/self/cgroup": "9:cpu,memory:/a.slice/x.service\n1:name=systemd:/b\n0::/b\n",
			"sys/fs/cgroup/memory/a.slice/memory.limit_in_bytes": "65536\n", info: "MemTotal: 2048 kB\n",
		}, 64 << 10},
		"old group":    {map[string]string{v1: "524288\n", info: "MemTotal: 2048 kB\n"}, 512 << 10},
		"old no limit": {map[string]string{v1: "9223372036854771712\n", info: "MemTotal: 2048 kB\n"}, 2 << 20},
		"garbled":      {map[string]string{v2: "x", info: "MemTotal: y kB\n"}, 0},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := memoryBytes(root); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

// Whoever sets GOGC decides alone.
func TestCollectGarbage(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for gogc, want := range map[string]bool{"": true, "100": false} {
		t.Setenv("GOGC", gogc)
		before := debug.SetGCPercent(99)
		collectGarbage(ended)
		if got := debug.SetGCPercent(before); (got != 99) != want {
			t.Errorf("GOGC=%q: the percentage is %d", gogc, got)
		}
	}
}
