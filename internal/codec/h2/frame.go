package h2

import (
	"encoding/binary"

	"sidecar/internal/buf"
)

// The types of frames.
const (
	frameData uint8 = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

const (
	flagEndStream  = 0x1 // ACK of SETTINGS and PING
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// The parameters of SETTINGS.
const (
	settingTableSize       = 1
	settingEnablePush      = 2
	settingMaxStreams      = 3
	settingInitialWindow   = 4
	settingMaxFrame        = 5
	settingConnectProtocol = 8
)

// code is an error code of RFC 9113, section 7.
type code uint32

const (
	codeNone code = iota
	codeProtocol
	codeInternal
	codeFlowControl
	codeSettingsTimeout
	codeStreamClosed
	codeFrameSize
	codeRefused
	codeCancel
	codeCompression
	codeConnect
	codeCalm
)

const (
	headerSize    = 9
	defaultWindow = 65535
	maxWindow     = 1<<31 - 1
	maxStreamID   = 1<<31 - 1
	minMaxFrame   = 16384
	maxMaxFrame   = 1<<24 - 1
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// Preface is what an HTTP/2 client sends first.
const Preface = preface

// frame is one frame in the block that it was read into.
type frame struct {
	kind, flags uint8
	id          uint32
	p           []byte
}

func putHeader(b []byte, n int, kind, flags uint8, id uint32) {
	b[0], b[1], b[2], b[3], b[4] = byte(n>>16), byte(n>>8), byte(n), kind, flags
	binary.BigEndian.PutUint32(b[5:], id)
}

// appendFrame appends a whole frame.
func appendFrame(out *buf.Chain, kind, flags uint8, id uint32, p []byte) {
	tail := out.Tail(headerSize + len(p))
	putHeader(tail, len(p), kind, flags, id)
	copy(tail[headerSize:], p)
	out.Extend(headerSize + len(p))
}

// appendData appends a DATA frame: p, which is a part of block if that is not nil.
func appendData(out *buf.Chain, flags uint8, id uint32, block *buf.Block, p []byte) {
	putHeader(out.Tail(headerSize), len(p), frameData, flags, id)
	out.Extend(headerSize)
	out.AppendShared(block, p)
}

// moveData appends a DATA frame of the first n bytes of from.
func moveData(out *buf.Chain, flags uint8, id uint32, from *buf.Chain, n int) {
	putHeader(out.Tail(headerSize), n, frameData, flags, id)
	out.Extend(headerSize)
	out.Move(from, n)
}

// appendWord appends a frame whose payload is one number: RST_STREAM and WINDOW_UPDATE.
func appendWord(out *buf.Chain, kind uint8, id, word uint32) {
	tail := out.Tail(headerSize + 4)
	putHeader(tail, 4, kind, 0, id)
	binary.BigEndian.PutUint32(tail[headerSize:], word)
	out.Extend(headerSize + 4)
}

func appendGoAway(out *buf.Chain, last uint32, c code, text string) {
	n := 8 + len(text)
	tail := out.Tail(headerSize + n)
	putHeader(tail, n, frameGoAway, 0, 0)
	binary.BigEndian.PutUint32(tail[headerSize:], last)
	binary.BigEndian.PutUint32(tail[headerSize+4:], uint32(c))
	copy(tail[headerSize+8:headerSize+n], text)
	out.Extend(headerSize + n)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), v)
}
