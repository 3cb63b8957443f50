//go:build !linux

package bench

import (
	"runtime"
	"time"
)

// Elsewhere processor time and memory are not known.

func cpuOf(int) (used time.Duration, known bool) { return 0, false }

func cpuOfFamily(int) (used time.Duration, known bool) { return 0, false }

func parentOf(int, string) (parent int, known bool) { return 0, false }

func rssOf(int) int64 { return 0 }

func cpuModel() string { return "" }

func memoryMB() int { return 0 }

func system() string { return runtime.GOOS }
