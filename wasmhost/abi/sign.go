package abi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" //nolint:gosec // one of the hashes that plugins may name
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// signature is the arguments of sign and of verify_signature, which number their fields alike.
type signature struct {
	hash, pem string
	key       []byte
	third     []byte // verify_signature: the signature; sign: the text
	fourth    []byte // verify_signature: the text; sign: the key as PEM
}

var errField = errors.New("the argument is no message of the kind")

// eachField walks the fields of a message that are numbers or bytes.
func eachField(b []byte, yield func(n protowire.Number, number uint64, data []byte)) error {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errField
		}
		b = b[size:]
		switch typ {
		case protowire.VarintType:
			v, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return errField
			}
			yield(n, v, nil)
			b = b[size:]
		case protowire.BytesType:
			v, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return errField
			}
			yield(n, 0, v)
			b = b[size:]
		default:
			size := protowire.ConsumeFieldValue(n, typ, b)
			if size < 0 {
				return errField
			}
			b = b[size:]
		}
	}
	return nil
}

func parseSignature(argument []byte) (signature, error) {
	var s signature
	err := eachField(argument, func(n protowire.Number, _ uint64, data []byte) {
		switch n {
		case 1:
			s.hash = string(data)
		case 2:
			s.key = data
		case 3:
			s.third = data
		case 4:
			s.fourth = data
		case 5:
			s.pem = string(data)
		default:
		}
	})
	return s, err
}

// der is the key in its binary form; exactly one of the two must be given.
func der(key []byte, text string) ([]byte, bool) {
	if (len(key) > 0) == (text != "") {
		return nil, false
	}
	if text == "" {
		return key, true
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, false
	}
	return block.Bytes, true
}

func digest(name string, text []byte) (crypto.Hash, []byte, error) {
	h, ok := map[string]crypto.Hash{
		"sha1": crypto.SHA1, "sha224": crypto.SHA224, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512,
	}[strings.ToLower(name)]
	if !ok {
		return 0, nil, errors.New(name + " is not supported.")
	}
	w := h.New()
	w.Write(text)
	return h, w.Sum(nil), nil
}

func foreignVerify(_ call, argument []byte) ([]byte, Status) {
	s, err := parseSignature(argument)
	if err != nil {
		return nil, BadArgument
	}
	data, ok := der(s.key, s.pem)
	if !ok {
		return nil, BadArgument
	}
	key, err := x509.ParsePKIXPublicKey(data)
	if err != nil {
		return nil, BadArgument
	}
	if err := verify(key, s.hash, s.third, s.fourth); err != nil {
		return protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), err.Error()), OK
	}
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), OK
}

var errVerify = errors.New("Failed to verify digest. Error code: 0") //nolint:staticcheck // Envoy's text

func verify(key any, hash string, sig, text []byte) error {
	h, sum, err := digest(hash, text)
	if err != nil {
		return err
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(k, h, sum, sig) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(k, sum, sig) {
			return nil
		}
	}
	return errVerify
}

func foreignSign(_ call, argument []byte) ([]byte, Status) {
	s, err := parseSignature(argument)
	if err != nil {
		return nil, BadArgument
	}
	data, ok := der(s.key, string(s.fourth))
	if !ok {
		return nil, BadArgument
	}
	key, err := privateKey(data)
	if err != nil {
		return nil, BadArgument
	}
	out, err := sign(key, s.hash, s.third)
	if err != nil {
		return protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), err.Error()), OK
	}
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	return protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), out), OK
}

// privateKey reads the three forms that Envoy's library tells apart by itself.
func privateKey(data []byte) (any, error) {
	if k, err := x509.ParsePKCS8PrivateKey(data); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(data); err == nil {
		return k, nil
	}
	return x509.ParseECPrivateKey(data)
}

func sign(key any, hash string, text []byte) ([]byte, error) {
	h, sum, err := digest(hash, text)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(rand.Reader, k, h, sum)
	case *ecdsa.PrivateKey:
		return ecdsa.SignASN1(rand.Reader, k, sum)
	}
	return nil, errors.New("the kind of key is not supported")
}
