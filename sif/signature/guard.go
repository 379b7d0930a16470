package signature

import "fmt"

// guarded calls a library on what anybody may have written. The PGP library has
// panicked on such input before: that ends the use of the input, and not the node.
func guarded(call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("it made the library fail: %v", v)
		}
	}()
	return call()
}
