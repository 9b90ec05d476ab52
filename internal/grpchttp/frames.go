package grpchttp

// HeadSize is the length of what stands before each message: a flag and the message's length.
const HeadSize = 5

// Frames follows the messages of a gRPC body through pieces of any size, and keeps nothing of them.
type Frames struct {
	Count uint64 // messages that have begun

	head [HeadSize]byte
	n    int    // of the head
	left uint32 // of the message
}

// Next takes as much of p as belongs to one message, and returns how much that was. end tells that the
// message is complete with it.
func (f *Frames) Next(p []byte) (n int, end bool) {
	for n < len(p) && f.n < HeadSize {
		if f.n == 0 {
			f.Count++
		}
		f.head[f.n] = p[n]
		n++
		if f.n++; f.n == HeadSize {
			f.left = uint32(f.head[1])<<24 | uint32(f.head[2])<<16 | uint32(f.head[3])<<8 | uint32(f.head[4])
		}
	}
	if f.n < HeadSize {
		return n, false
	}
	k := min(uint64(f.left), uint64(len(p)-n))
	f.left -= uint32(k)
	n += int(k)
	if f.left > 0 {
		return n, false
	}
	f.n = 0
	return n, true
}

// Skip takes all of p and returns how many messages have begun in it.
func (f *Frames) Skip(p []byte) uint64 {
	before := f.Count
	for len(p) > 0 {
		n, _ := f.Next(p)
		p = p[n:]
	}
	return f.Count - before
}

// AppendHead appends what stands before a message of n bytes.
func AppendHead(b []byte, flag byte, n int) []byte {
	return append(b, flag, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
