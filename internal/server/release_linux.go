package server

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// releaseMemory gives back what only the start needed: the garbage of the configuration, and the
// pages of the binary that registering message types and compiling have touched (two thirds of the
// resident size of an idle process). Those are backed by the file: the next use maps them again.
func releaseMemory() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range cleanMappings(smaps, exe) {
		// A refusal costs memory and nothing else.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// cleanMappings finds, in /proc/self/smaps, the parts of the binary that cannot be written to and of
// which no page differs from the file: dropping those loses nothing. What the dynamic loader has
// relocated and then sealed is read-only too, but differs (Anonymous, or Swap).
func cleanMappings(smaps []byte, exe string) []mapping {
	var out []mapping
	var cur mapping
	inside, clean := false, 0
	for line := range bytes.Lines(smaps) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		if !bytes.HasSuffix(f[0], []byte(":")) {
			cur, inside = codeMapping(f, exe)
			clean = 0
			continue
		}
		if name := string(f[0]); inside && (name == "Anonymous:" || name == "Swap:") {
			if len(f) < 2 || string(f[1]) != "0" {
				inside = false
				continue
			}
			if clean++; clean == 2 {
				out = append(out, cur)
			}
		}
	}
	return out
}

// codeMapping reads the first line of a mapping; ok tells that it is a read-only part of the binary.
func codeMapping(f [][]byte, exe string) (m mapping, ok bool) {
	if len(f) != 6 || string(f[5]) != exe || (string(f[1]) != "r-xp" && string(f[1]) != "r--p") {
		return mapping{}, false
	}
	from, to, found := bytes.Cut(f[0], []byte("-"))
	start, errStart := strconv.ParseUint(string(from), 16, 64)
	end, errEnd := strconv.ParseUint(string(to), 16, 64)
	return mapping{uintptr(start), uintptr(end)}, found && errStart == nil && errEnd == nil && start < end
}
