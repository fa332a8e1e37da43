// The test's requests that concern a VM's disks.
package simulator

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/vmware/govmomi/vim25/types"
)

// diskRequest names a disk and what is to happen to it.
type diskRequest struct {
	Key, Other   int32
	Image        string
	Offset, Size int64
	Data         []byte
}

// disk decodes a request and finds its disk, which must be one in a datastore.
func (vm *VirtualMachine) requested(line []byte) (*types.VirtualDisk, *diskRequest, error) {
	c := &diskRequest{}
	if err := json.Unmarshal(line, c); err != nil {
		return nil, nil, err
	}
	d, err := vm.disk(c.Key)
	if err == nil && back(d) == nil {
		err = fmt.Errorf("disk %d is a raw device", d.Key)
	}
	return d, c, err
}

func attachImage(vm *VirtualMachine, line []byte) (reply, error) {
	d, c, err := vm.requested(line)
	if err != nil {
		return nil, err
	}
	if err := vm.attach(d, c.Image); err != nil {
		return nil, err
	}
	vm.setDevices(vm.Config.Hardware.Device)
	return reply{"path": flat(back(d).FileName), "key": d.Key}, nil
}

func livePath(vm *VirtualMachine, line []byte) (reply, error) {
	d, _, err := vm.requested(line)
	if err != nil {
		return nil, err
	}
	return reply{"path": flat(back(d).FileName), "key": d.Key}, nil
}

func guestWrite(vm *VirtualMachine, line []byte) (reply, error) {
	d, c, err := vm.requested(line)
	if err != nil {
		return nil, err
	}
	if c.Offset < 0 || c.Offset+int64(len(c.Data)) > getDiskSize(d) {
		return nil, fmt.Errorf("disk %d has %d bytes only", d.Key, getDiskSize(d))
	}
	f, err := os.OpenFile(flat(back(d).FileName), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, err = f.WriteAt(c.Data, c.Offset)
	return nil, err
}

func addDisk(vm *VirtualMachine, line []byte) (reply, error) {
	n := newDisk{}
	if err := json.Unmarshal(line, &n); err != nil {
		return nil, err
	}
	key, err := vm.addDisk(n)
	return reply{"key": key}, err
}

func removeDisk(vm *VirtualMachine, line []byte) (reply, error) {
	c := &diskRequest{}
	if err := json.Unmarshal(line, c); err != nil {
		return nil, err
	}
	d, err := vm.disk(c.Key)
	if err != nil {
		return nil, err
	}
	fault := vm.configureDevices(&types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{
			Operation:     types.VirtualDeviceConfigSpecOperationRemove,
			FileOperation: types.VirtualDeviceConfigSpecFileOperationDestroy, Device: d,
		},
	}})
	if fault != nil {
		return nil, fmt.Errorf("%T", fault)
	}
	return nil, nil
}

func swapDisks(vm *VirtualMachine, line []byte) (reply, error) {
	d, c, err := vm.requested(line)
	if err != nil {
		return nil, err
	}
	other, err := vm.disk(c.Other)
	if err != nil {
		return nil, err
	}
	devices := copyDevices(vm.Config.Hardware.Device)
	for _, x := range vmDisks(devices) {
		switch x.Key {
		case d.Key:
			x.Key, x.UnitNumber, x.ControllerKey, x.DiskObjectId = other.Key, other.UnitNumber, other.ControllerKey, other.DiskObjectId
		case other.Key:
			x.Key, x.UnitNumber, x.ControllerKey, x.DiskObjectId = d.Key, d.UnitNumber, d.ControllerKey, d.DiskObjectId
		}
	}
	vm.setDevices(devices)
	return nil, nil
}

func extendDisk(vm *VirtualMachine, line []byte) (reply, error) {
	d, c, err := vm.requested(line)
	if err != nil {
		return nil, err
	}
	if fault := vm.extend(d, c.Size); fault != nil {
		return nil, fmt.Errorf("%T", fault)
	}
	vm.setDevices(vm.Config.Hardware.Device)
	return nil, nil
}
