package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what the kernel accounts to a process and its living children.
type Usage struct {
	CPU     time.Duration // user and system time; of children that ended as well
	RSS     int64         // VmRSS, bytes
	Threads int
	FDs     int
	Maps    int // memory mappings
	MemFDs  int // open memfds
}

// Usage reads the accounts of the whole process tree.
func (p *Process) Usage() (Usage, error) { return TreeUsage(p.PID) }

// TreeUsage reads the accounts of pid and all its descendants. Children come and go while it reads:
// one that is gone is left out, its CPU is in its parent's account by then.
func TreeUsage(pid int) (Usage, error) {
	var total Usage
	for i, id := range tree(pid) {
		u, err := usage(id)
		if err != nil {
			if i == 0 {
				return Usage{}, fmt.Errorf("process %d: %w", pid, err)
			}
			continue
		}
		total.CPU += u.CPU
		total.RSS += u.RSS
		total.Threads += u.Threads
		total.FDs += u.FDs
		total.Maps += u.Maps
		total.MemFDs += u.MemFDs
	}
	return total, nil
}

// CPU reads the CPU time of the tree alone, cheaply enough for the edges of a measurement.
func (p *Process) CPU() (time.Duration, error) {
	var total time.Duration
	for i, id := range tree(p.PID) {
		t, err := cpu(id)
		if err != nil && i == 0 {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// tree lists pid first, then its descendants.
func tree(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists {
			data, err := os.ReadFile(list)
			if err != nil {
				continue
			}
			for field := range strings.FieldsSeq(string(data)) {
				if child, err := strconv.Atoi(field); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// cpu is the process's own CPU clock (its utime plus stime, in nanoseconds instead of the 10 ms
// ticks of /proc) and the ticks of the children it waited for.
func cpu(pid int) (time.Duration, error) {
	var ts unix.Timespec
	// The kernel's encoding of "CPU-time clock of process pid": ~pid << 3 | CPUCLOCK_SCHED.
	clock := int32(^pid<<3 | 2)
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, err
	}
	waited, err := waitedTicks(pid)
	if err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()) + waited, nil
}

// waitedTicks is cutime plus cstime of /proc/PID/stat.
func waitedTicks(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return 0, errors.New("stat: unexpected format")
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	var sum time.Duration
	for _, f := range fields[13:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

func usage(pid int) (Usage, error) {
	var u Usage
	var err error
	if u.CPU, err = cpu(pid); err != nil {
		return u, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch key {
		case "VmRSS":
			kb, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				return u, fmt.Errorf("VmRSS: %w", err)
			}
			u.RSS = kb << 10
		case "Threads":
			if u.Threads, err = strconv.Atoi(number); err != nil {
				return u, fmt.Errorf("threads: %w", err)
			}
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	u.FDs = len(fds)
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err == nil && strings.HasPrefix(target, "/memfd:") {
			u.MemFDs++
		}
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return u, err
	}
	u.Maps = strings.Count(string(maps), "\n")
	return u, nil
}
