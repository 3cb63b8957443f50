package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTicks is USER_HZ, in which the kernel tells processor time to programs. It is 100 wherever Go runs.
const clockTicks = 100

// process is what /proc/PID/stat tells.
type process struct {
	parent     int
	used       time.Duration // by its own threads
	usedByDead time.Duration // by its children that have ended
}

func readProcess(pid int) (process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The second field is the name, in parentheses, and may have some of its own: proc_pid_stat(5).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return process{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var numbers [5]int64
	for i, field := range []int{1, 11, 12, 13, 14} { // ppid, utime, stime, cutime, cstime
		if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return process{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	ticks := func(n int64) time.Duration { return time.Duration(n) * time.Second / clockTicks }
	return process{int(numbers[0]), ticks(numbers[1] + numbers[2]), ticks(numbers[3] + numbers[4])}, nil
}

// cpuOf is the processor time that a process has used up to now.
func cpuOf(pid int) (used time.Duration, known bool) {
	p, err := readProcess(pid)
	return p.used, err == nil
}

// cpuOfFamily is that of a process and all children that it has or had. One that ends meanwhile is among the latter the next time.
func cpuOfFamily(pid int) (used time.Duration, known bool) {
	parent, err := readProcess(pid)
	if err != nil {
		return 0, false
	}
	used = parent.used + parent.usedByDead
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, false
	}
	for _, path := range paths {
		child, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		if p, err := readProcess(child); err == nil && p.parent == pid {
			used += p.used + p.usedByDead
		}
	}
	return used, true
}

// parentOf returns the parent of a process of a name.
func parentOf(pid int, name string) (parent int, known bool) {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(comm)) != name {
		return 0, false
	}
	p, err := readProcess(pid)
	return p.parent, err == nil && p.parent > 1
}

// rssOf is the memory of a process that is in RAM, in bytes; 0: not known.
func rssOf(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// cpuModel and memoryMB are what /proc tells of the machine.
func cpuModel() string { return procField("/proc/cpuinfo", "model name") }

func memoryMB() int {
	number, _, _ := strings.Cut(procField("/proc/meminfo", "MemTotal"), " ")
	kilobytes, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return kilobytes / 1024
}

// procField is the first value of a field; empty: there is none.
func procField(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if field, value, _ := strings.Cut(line, ":"); strings.TrimSpace(field) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// system is the kernel and its release.
func system() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
}
